"""What all tests share: no telemetry, no network, fixed hypothesis examples, and one worker for a module's fixtures."""

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


#: Groups that take longest, first: the other worker does all else meanwhile.
LONGEST = ("app_browser", "ray")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Send the tests of a module's own fixtures to one worker, so that no fixture is made twice."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo", None)
        shared = fixtures and any(d[-1].scope == "module" for d in fixtures.name2fixturedefs.values())
        if shared and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: _order(item.get_closest_marker("xdist_group")))


def _order(mark: pytest.Mark | None) -> int:
    name = mark.args[0] if mark and mark.args else ""
    return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (not name)


@pytest.fixture(autouse=True)
def _stay_here() -> Iterator[None]:
    """No test leaves its worker in another folder: the next ones start processes by relative paths."""
    before = os.getcwd()  # noqa: PTH109
    yield
    after = os.getcwd()  # noqa: PTH109
    os.chdir(before)
    assert after == before
