"""One plug-in of each kind for the AHP toolkit."""
