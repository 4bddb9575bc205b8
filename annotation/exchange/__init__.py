"""Decisions and masks to other tools and back."""
