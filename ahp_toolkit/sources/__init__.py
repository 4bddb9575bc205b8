"""Sources of photographed humans, one file each: COCO, VOC with SBD, LIP, Objects365, Open Images, the AHP release."""

from ahp_toolkit.core.registry import Registry

SOURCES = Registry("source", __name__)
