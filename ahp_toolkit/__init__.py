"""AHP toolkit: build, review and benchmark amodal human perception (Zhou et al., CVPR 2021)."""

__version__ = "0.1.0.dev0"
