"""How the sample world is written in the formats of the sources."""
