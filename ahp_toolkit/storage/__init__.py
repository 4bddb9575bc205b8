"""Bytes: files, tables, images, photos and where they lie."""
