"""The Python interface, and every Python example of README and documentation, on a small build."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import annotation
import baselines
import benchmark
from ahp_toolkit import Build, UserError, build_dataset, configure
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log
from baselines.training.train import Training, train
from benchmark.grading.truth import crop_of
from tests.benchmark.world import by_rule, submit
from tests.cli.small import data

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def examples() -> Iterator[pytest.param]:
    """Every fenced block of Python, by page and number."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmark" / "SUBMIT.md"]:
        if "generated" not in page.parts:
            for number, code in enumerate(BLOCK.findall(page.read_text())):
                yield pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with ``out/ahp`` (a build, two trained runs, a board) and ``predictions``."""
    folder = tmp_path_factory.mktemp("python")
    out = folder / "out" / "ahp"
    build_dataset(configure({"coco": data(folder / "data", 8)}, out, review="provisional", workers=1))
    for task in ("mask", "content"):
        settings = {"width": 4, "critic_width": 4}
        train(Training(out, "pix2pix", task, "debug", settings=settings, steps=1, out=out, name=task, device="cpu",
                       quiet=True))  # fmt: skip
    samples = list(Build.open(out).samples("val"))
    submit(folder / "predictions", by_rule(samples, "given"), out / "splits" / "val")
    benchmark.score(folder / "predictions", out / "splits" / "val", out / "boards")
    return folder


@pytest.mark.parametrize("code", examples())
def test_an_example_runs(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    samples = Build.open("out/ahp").samples("val")
    exec(compile(code, "example", "exec"), {"my_results": ((s.sample_id, crop_of(s, "given")) for s in samples)})


def test_a_build_has_people_and_samples_with_pixels(folder):
    build = Build.open(folder / "out" / "ahp")
    assert build.splits() == ["train", "val"] or build.splits() == ["train", "val", "test"]
    people = build.humans()
    assert {h.human_id for s in build.splits() for h in build.humans(s)} == {h.human_id for h in people}
    assert build.photo(people[0].image).shape == (people[0].image.height, people[0].image.width, 3)
    for sample in build.samples("val"):
        pasted = build.render(sample)
        assert (pasted.amodal == sample.amodal.decode()).all() and (pasted.modal <= pasted.amodal).all()
        assert (pasted.image == pasted.recovered)[~pasted.invisible].all()


def test_a_split_is_a_torch_dataset(folder):
    items = Build.open(folder / "out" / "ahp").dataset("val", size=64)
    (batch,) = DataLoader(items, batch_size=len(items))
    n = len(items)
    assert batch["image"].shape == batch["recovered"].shape == (n, 3, 64, 64)
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1
    for sample, modal, amodal in zip(items.samples, batch["modal"], batch["amodal"], strict=True):
        assert set(np.unique(amodal)) == {0, 1} and (modal <= amodal).all()
        assert sample.split == "val"


def test_decisions_are_those_of_people_where_they_have_decided(folder, tmp_path):
    import shutil

    root = tmp_path / "out"
    shutil.copytree(folder / "out" / "ahp", root)
    before = annotation.decisions(root)
    assert before and all(d.provisional for d in before.values())
    some = next(iter(before))
    log.append(
        root / "decisions" / "ann.jsonl",
        Decision(some, "discard", "ann", before[some].mask_digest, "occluded", at=log.now()),
    )
    assert annotation.decisions(root)[some].verdict == "discard"


def test_a_folder_that_is_no_build_is_refused_in_one_line(tmp_path):
    for call in (
        lambda: Build.open(tmp_path / "x"),
        lambda: baselines.load(tmp_path),
        lambda: benchmark.read(tmp_path),
    ):
        with pytest.raises(UserError, match="expected"):
            call()


def test_importing_the_packages_imports_nothing_heavy():
    code = "import sys, ahp_toolkit, annotation, baselines, benchmark\n"
    code += "bad = {'torch', 'numpy', 'pyarrow', 'cv2', 'click', 'fiftyone'} & set(sys.modules)\nassert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_option_of_a_build_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no option 'gutters'"):
        configure({"coco": tmp_path}, tmp_path / "out", gutters=3)
