"""A few hundred inputs of each target by fixed numbers; ``make fuzz`` runs a million with limits on memory and time."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from tests.harness.fuzz import mutate
from tests.harness.fuzz.mutate import numbered
from tests.harness.fuzz.targets import TARGETS

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
                e.add_note(f"python -m tests.harness.fuzz.run --targets {name} --seed 1 --only {n}")
                raise
    assert "accepted" in kinds or "dropped" in kinds  # the examples themselves are good
    assert kinds & {"refused", "dropped"}


def test_an_input_is_known_by_its_number_whatever_came_before_it() -> None:
    """`VALUES` holds containers; an edit of one must not reach the next input."""
    document = json.dumps({"images": [{"id": 1, "size": [1, 2]}], "annotations": [{"id": 2, "bbox": [0, 0, 1, 1]}]})

    def made(n: int) -> bytes:
        return mutate.json_bytes(document.encode(), numbered("x", 0, n))

    wanted = [made(n) for n in range(400, 500)]
    for n in range(400):
        made(n)
    assert [made(n) for n in range(400, 500)] == wanted
