"""Human parsers, one file each: pseudo labels of body parts, the 20 classes of LIP (paper §3.2)."""

from ahp_toolkit.core.registry import Registry

#: What every plug-in module defines (see `base`).
FACTS = ("build", "NEEDS_PIXELS", "TRAINABLE", "WEIGHTS", "LICENCE")
PARSERS = Registry("parser", __name__, facts=FACTS)
