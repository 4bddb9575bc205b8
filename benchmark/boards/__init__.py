"""Leaderboards: ranking, tables, charts and pages."""
