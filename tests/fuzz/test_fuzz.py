"""A few hundred inputs of each target by fixed numbers; ``make fuzz`` runs a million with limits on memory and time."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from .mutate import numbered
from .targets import TARGETS

INPUTS = 250


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_inputs_end_in_records_reasons_or_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    kinds = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for n in range(max(10, round(INPUTS * target.share))):
            try:
                kinds.add(target.step(numbered(name, 1, n), False).kind)
            except Exception as e:
                e.add_note(f"python -m tests.fuzz.run --targets {name} --seed 1 --only {n}")
                raise
    assert "accepted" in kinds or "dropped" in kinds  # the examples themselves are good
    assert kinds & {"refused", "dropped"}
