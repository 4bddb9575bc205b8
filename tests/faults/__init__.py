"""Faults: every stage killed, starved of disk, corrupted and misled at seeded points of its own run; see ``run.py``."""
