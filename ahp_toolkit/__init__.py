"""AHP toolkit: build, review and benchmark amodal human perception (Zhou et al., CVPR 2021)."""

import os

__version__ = "0.1.0.dev0"

# OpenMP threads that wait by spinning make torch ten times slower wherever other work shares the cores (measured);
# it counts only when it is set before torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
