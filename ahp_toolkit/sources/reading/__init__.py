"""How the annotation files of the sources are read."""
