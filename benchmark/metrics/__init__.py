"""Metrics, one file each: ``METRIC`` (the class) and ``EXAMPLES`` (cases worked by hand)."""
