"""Training: recipes, settings, the loop and run folders."""
