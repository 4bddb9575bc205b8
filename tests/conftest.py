"""What all tests share: no telemetry, no network, hypothesis without deadlines and with the same examples each run."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
