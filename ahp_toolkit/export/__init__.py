"""Splits in the formats of other toolkits."""
