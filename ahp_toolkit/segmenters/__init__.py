"""Human segmenters, one file each: they turn a box into a mask (paper §4.1, human segmentation)."""

from ahp_toolkit.core.registry import Registry

SEGMENTERS = Registry("segmenter", __name__, helpers=("crop", "instances"))
