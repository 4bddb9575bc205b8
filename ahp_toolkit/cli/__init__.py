"""The command line `ahp`."""
