"""One build: options, checks and the order of the stages."""
