"""Export formats, one file each: cocoa, kins, ahp, webdataset."""

from ...core.registry import Registry

FORMATS = Registry("export format", __name__)
