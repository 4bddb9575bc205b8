"""The light install, without torch, FiftyOne or Ray: builds, exports and scores work; the rest says its pip line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import EXTRAS
from ahp_toolkit.core.records import Prediction
from ahp_toolkit.storage import images
from tests.benchmark.world import make_split, noisy, paint, submit
from tests.cli.small import ENV, data, words

BLOCK = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in EXTRAS)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """``ahp`` as a light install runs it, workers too: packages of the extras cannot be imported."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "sitecustomize.py").write_text(BLOCK)
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ahp_toolkit.cli.main", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)

    return run


@pytest.fixture(scope="module")
def build(light, tmp_path_factory) -> Path:
    """A small build, made by the light install with two workers."""
    root = tmp_path_factory.mktemp("build")
    made = light(*words(data(root / "data", 8), root / "out", "--workers", 2))
    assert made.returncode == 0, made.stderr
    return root / "out"


def test_a_build_its_pixels_and_its_export_need_no_extra(light, build):
    assert (build / "report" / "index.html").exists()
    for command in (("materialize", "--what", "crops"), ("export", "--format", "cocoa")):
        out = light("build", *command, "--root", build, "--split", "val")
        assert out.returncode == 0, out.stderr
    converted = light("convert", f"coco={build.parent / 'data'}", "--to", "yolo", "--out", build.parent / "yolo")
    assert converted.returncode == 0, converted.stderr
    status = light("review", "status", "--root", build)
    assert status.returncode == 0 and "coco" in status.stdout, status.stderr


def test_a_submission_is_validated_scored_and_reported_without_an_extra(light, tmp_path):
    split = tmp_path / "split"
    samples = make_split(split, pictures=True)
    folder = submit(tmp_path / "mine", noisy(samples, 1, 0))
    painted = [Prediction(s.sample_id, "m", image=f"{k}.png") for k, s in enumerate(samples)]
    for k, s in enumerate(samples):
        images.write_png(tmp_path / "content" / f"{k}.png", paint(s)[1])
    content = submit(tmp_path / "content", painted)
    for command in (
        ("validate", folder, "--split", split),
        ("score", folder, content, "--split", split, "--out", tmp_path / "boards"),
        ("report", "--boards", tmp_path / "boards"),
    ):
        out = light("bench", *command)
        assert out.returncode == 0, out.stderr
    page = next((tmp_path / "boards").rglob("*.html")).read_text()
    assert page.count("absent: needs ahp-toolkit[train]") == 3 and "l1_image" in page


@pytest.mark.parametrize(
    ("args", "extra"),
    [
        (("review", "--root", "{}"), "review"),
        (("bench", "train", "pcnets", "--task", "mask", "--root", "{}"), "train"),
        (("build", "segmenter", "--root", "{}"), "train"),
        (("build", "--source", "coco={}/../data", "--out", "{}/../o", "--segmenter", "mask_rcnn"), "train"),
        (("build", "--source", "coco={}/../data", "--out", "{}/../o", "--engine", "ray"), "ray"),
        (("build", "--source", "coco=s3://bucket/data", "--out", "{}/../o"), "storage"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[1],
)
def test_a_command_that_needs_an_extra_says_the_pip_line_and_exits_with_2(light, build, args, extra):
    out = light(*(a.format(build) for a in args))
    assert out.returncode == 2, out.stderr
    assert f"pip install 'ahp-toolkit[{extra}]'" in out.stderr.splitlines()[-1]


def test_a_light_install_is_healthy(light):
    out = light("doctor")
    assert out.returncode == 0, out.stdout + out.stderr
