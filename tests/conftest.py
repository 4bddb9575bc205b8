"""What all tests share: no telemetry, no network, fixed hypothesis examples, and one worker for a module's fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


#: What takes longest, first: the other worker does all else meanwhile.
LONGEST = ("tests/annotation/test_app_browser.py", "tests/runtime/ray")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest; of Ray's, with the tests that start clusters of their own."""
    items.sort(
        key=lambda item: (not item.nodeid.startswith(LONGEST), "/ray/" in item.nodeid, "_start" not in item.nodeid)
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Send the tests of a module's own fixtures to one worker, so that no fixture is made twice; and all of Ray's.

    The marks of xdist's loadgroup have no effect in pytest 9.2 with xdist 3.8, which no longer share how ids are kept.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0]) or nodeid

    return Groups(config, log)


@cache
def group_of(path: str) -> str:
    """The group of a test file; empty where its tests share nothing."""
    if path.startswith(LONGEST[1]):
        return LONGEST[1]
    file = Path(__file__).parents[1] / path
    return path if file.is_file() and 'scope="module"' in file.read_text() else ""


@pytest.fixture(autouse=True)
def _stay_here() -> Iterator[None]:
    """No test leaves its worker in another folder: the next ones start processes by relative paths."""
    before = os.getcwd()  # noqa: PTH109
    yield
    after = os.getcwd()  # noqa: PTH109
    os.chdir(before)
    assert after == before
