"""How the sample world is drawn."""
