"""The report of a build: statistics, plots, contact sheets and the page."""
