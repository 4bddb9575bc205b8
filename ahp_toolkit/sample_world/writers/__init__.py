"""The sample world in the file formats of the sources: one module a format, with ``write(root, scenes)``."""
