"""Human parsers, one file each: body-part pseudo labels, the 20 LIP classes (paper §3.2)."""

from ahp_toolkit.core.registry import Registry

PARSERS = Registry("parser", __name__, helpers=("crop",))
