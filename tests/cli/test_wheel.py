"""The wheel holds every tracked file of the packages and nothing else: data, the guide's pictures, the plugin."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ahp_toolkit", "annotation", "baselines", "benchmark")


def tracked() -> list[str]:
    """Files of the packages that git knows and that are there."""
    out = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [f for f in out.splitlines() if (ROOT / f).is_file()]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the tracked files alone: what lies about in a working folder is not built in."""
    folder = tmp_path_factory.mktemp("source")
    for name in [*tracked(), "pyproject.toml", "README.md", "LICENSE"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> zipfile.ZipFile:
    """Built without a network, by the setuptools that are here."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    made = subprocess.run([*pip, "-w", folder, source], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_tracked_files_of_the_packages(wheel, source):
    inside = {n for n in wheel.namelist() if ".dist-info/" not in n}
    given = {p.relative_to(source).as_posix() for name in PACKAGES for p in (source / name).rglob("*") if p.is_file()}
    assert inside == given
    assert {Path(n).suffix for n in inside} >= {".py", ".html", ".js", ".md", ".png", ".yml"}
    for name in inside:
        assert wheel.read(name) == (source / name).read_bytes()


def test_the_wheel_says_what_it_is(wheel):
    import tomllib

    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (about,) = [n for n in wheel.namelist() if n.endswith("dist-info/METADATA")]
    text = wheel.read(about).decode()
    assert f"Version: {said['version']}\n" in text and "License-Expression: Apache-2.0" in text
    assert any(n.endswith("licenses/LICENSE") for n in wheel.namelist())
    (points,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert "ahp = ahp_toolkit.cli.main:main" in wheel.read(points).decode()
    assert f"## [{said['version']}] - 2" in (ROOT / "CHANGELOG.md").read_text()
