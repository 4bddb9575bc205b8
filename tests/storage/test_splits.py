"""A split is what a method is handed of it and judged by: pixels, true masks, initial masks, crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Given, Sample
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.splits import sample_pairs, split_digest
from baselines.training import runs
from benchmark.grading import truth
from tests.benchmark.world import sample

SAMPLES = [sample(k, h, 0.3) for h in range(3) for k in range(2)]


def written(folder: Path, samples: list[Sample]) -> Path:
    half = len(samples) // 2
    for number, part in enumerate((samples[:half], samples[half:])):
        parquet.write_records(folder / f"part-{number:05d}.parquet", part, Sample)
    return folder


def test_trainers_and_judges_know_a_split_by_the_same_digest_whatever_its_order(tmp_path: Path) -> None:
    split = written(tmp_path / "a", SAMPLES)
    digest = runs.split_digest(split)
    assert digest == truth.split_digest(truth.sample_pairs(split)) == split_digest(sample_pairs(split))
    assert digest == runs.split_digest(written(tmp_path / "b", SAMPLES[::-1]))


CHANGES = {
    "the id": {"sample_id": "val/other"},
    "the pixels": {"digest": "0" * 64},
    "the initial mask": {"given": Given(SAMPLES[0].modal, "test")},
    "who made it": {"given": Given(SAMPLES[0].given.mask, "another")},
    "a true mask": {"amodal": SAMPLES[0].modal},
    "the human": {"human_id": "coco/0009#1"},
    "the crop": {"crop": SAMPLES[1].crop._replace(x0=SAMPLES[0].crop.x0 - 1)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_split_is_another_one_when_a_sample_has_another(tmp_path: Path, change: dict[str, object]) -> None:
    other = [replace(SAMPLES[0], **change), *SAMPLES[1:]]  # type: ignore[arg-type]
    assert runs.split_digest(written(tmp_path / "a", SAMPLES)) != runs.split_digest(written(tmp_path / "b", other))


@pytest.mark.parametrize(("at", "near"), [("splits/val/humans", ", such as .*/val$"), ("demo/review", "NAME itself$")])
def test_a_table_of_other_records_is_refused_with_the_split_it_lies_in_if_it_lies_in_one(
    tmp_path: Path, at: str, near: str
) -> None:
    parquet.write_records(tmp_path / at / "part-00000.parquet", [Dropped("a", "stage", "reason")], Dropped)
    with pytest.raises(UserError, match=near):
        sample_pairs(tmp_path / at)
