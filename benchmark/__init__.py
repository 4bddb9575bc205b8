"""Judges: the protocol, metrics and leaderboards. Never imports a model."""
