"""Export formats, one file each: cocoa, kins, ahp, webdataset."""

from ahp_toolkit.core.registry import Registry

FORMATS = Registry("export format", __name__, facts=("write", "PICTURES"))
