"""What all tests share: no telemetry, no network, hypothesis without deadlines and with the same examples each run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _stay_here() -> Iterator[None]:
    """No test leaves its worker in another folder: the next ones start processes by relative paths."""
    before = os.getcwd()  # noqa: PTH109
    yield
    after = os.getcwd()  # noqa: PTH109
    os.chdir(before)
    assert after == before
