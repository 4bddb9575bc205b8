"""Human segmenters, one file each: from a box to a mask (paper §4.1, human segmentation)."""

from ahp_toolkit.core.registry import Registry

#: What every plug-in module defines (see `base`).
FACTS = ("build", "NEEDS_PIXELS", "TRAINABLE", "WEIGHTS", "LICENCE")
SEGMENTERS = Registry("segmenter", __name__, facts=FACTS)
