"""One tiny build for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.baselines.training import world


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.make(tmp_path_factory.mktemp("build"))
