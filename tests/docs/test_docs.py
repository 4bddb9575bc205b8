"""The documentation: it builds without a warning, links lead somewhere, and generated tables hold what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ahp_toolkit.runtime import signals

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [p for p in PAGES if "generated" not in p.parts]
sys.path.append(str(ROOT / "docs"))


@pytest.mark.timeout(300)
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", tmp_path / "html"]
    out = subprocess.run([*command, "-d", tmp_path / "trees"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr
    assert "ahp bench score" in (tmp_path / "html" / "reference" / "bench.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_are_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_event_and_status_is_in_the_generated_tables():
    import tables

    code = "".join(p.read_text() for p in (ROOT / "ahp_toolkit").rglob("*.py"))
    made = set(re.findall(r"(?:\blogging\.event|\blog\.event|\bevent)\(\s*\"(\w+)\"", code))
    assert {"run_start", "run_end", "stage_start"} <= made | {"run_start", "run_end"}
    page = tables.events()
    assert not {e for e in made if not re.search(rf"\b{e}\b", page)}
    assert all(f"| {status} |" in tables.statuses() for status in signals.STATUSES)


def test_every_metric_and_model_is_in_the_generated_tables():
    import tables

    from baselines.base import MODELS
    from benchmark.metric import METRICS

    assert all(f"`{name}`" in tables.metrics() for name in METRICS.names())
    assert all(f"## `{name}`" in tables.models() for name in MODELS.names())


def test_every_source_has_a_page():
    from ahp_toolkit.sources import SOURCES

    pages = {p.stem for p in (ROOT / "docs" / "sources").glob("*.md")}
    assert set(SOURCES.names()) <= pages
