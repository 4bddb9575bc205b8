"""Hostile names through every writer of reports: what came from data is text everywhere, never markup or a formula."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import markdown
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.cli.bench import paper_page
from ahp_toolkit.core import text
from ahp_toolkit.decisions import status
from ahp_toolkit.report import page as report
from ahp_toolkit.report import statistics, tables
from ahp_toolkit.runtime import signals
from annotation.exchange import decisions
from benchmark.boards.report import write_report
from benchmark.grading.records import Problem
from benchmark.grading.score import score
from tests import fake_build
from tests.annotation.small import person, say, write
from tests.benchmark.world import make_split, noisy, submit

HOSTILE = (
    "=cmd|'/c calc'!A0", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b\n\n# head\n\n<b>x</b>",
    "[x](javascript:alert(1)) ![y](http://evil.example/p.png)", "[a]: http://evil.example", "`x` **y**",
    "\\input{/etc/passwd} $x$ % & # _ { } ~ ^", "\x1b]0;owned\x07\x1b[2J", "‮txt.exe‬\u2028next", "+1+1", "@SUM(A1)",
    "</title></style></script><svg onload=alert(1)>", "${{7*7}} {{7*7}} {% raw %}",
)  # fmt: skip
ALL = " ".join(HOSTILE)


class _Page(HTMLParser):
    """Collects what could run or fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.scripts: list[str] = []
        self.policy, self._inside = "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {k: v or "" for k, v in attrs}
        self._inside = tag == "script"
        if tag in ("iframe", "object", "embed", "base", "form", "link"):
            self.bad.append(tag)
        for k, v in said.items():
            if k.startswith("on") or ("javascript:" in v.lower().strip() and k in ("href", "src")):
                self.bad.append(f"{tag} {k}={v}")
            if k in ("src", "href") and not v.startswith(("data:", "#")):
                self.bad.append(f"{tag} {k}={v}")
        if said.get("http-equiv") == "Content-Security-Policy":
            self.policy = said["content"]

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def _harmless(page: str, scripts: int) -> None:
    seen = _Page(page)
    assert seen.bad == [] and len(seen.scripts) == scripts
    assert seen.policy.startswith("default-src 'none'")
    for script in seen.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in seen.policy and "alert(1)" not in script


def _harmless_markdown(said: str, tables: int) -> None:
    html = markdown.markdown(said, extensions=["tables"])
    seen = _Page(html)
    assert seen.bad == [] and not re.search(r"<(script|a|img|b|svg)\b", html) and "<code>x" not in html
    assert html.count("<table>") == tables and "\x1b" not in said


def _harmless_csv(said: str) -> None:
    for row in csv.reader(io.StringIO(said)):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
            assert not cell.startswith("-") or text._is_number(cell)


# --- the words themselves -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.text())
def test_one_line_is_one_printable_line(said: str) -> None:
    shown = text.one_line(said)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@settings(max_examples=60)
@given(st.text() | st.sampled_from(HOSTILE) | st.text("'=+-@\t1."))
def test_a_cell_comes_back_and_is_no_formula(said: str) -> None:
    cell = text.to_cell(said)
    assert isinstance(cell, str) and text.from_cell(cell) == said
    assert not cell.startswith(tuple("=@\t\r\n")) and (not cell.startswith(("+", "-")) or text._is_number(cell))


@settings(max_examples=60)
@given(st.text() | st.sampled_from(HOSTILE))
def test_markdown_of_any_text_is_one_cell(said: str) -> None:
    html = markdown.markdown(f"| a | b |\n| --- | --- |\n| {text.markdown(said)} | x |\n", extensions=["tables"])
    assert html.count("<td>") == 2 and not re.search(r"<(script|a|img|code|svg)\b", html)


def test_errors_do_not_rewrite_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    signals.user(f"/data/{ALL}.jpg: no such file")
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\u202e" not in said and said.count("\n") == 1
    assert "\x1b" not in str(Problem("missing", "a", ALL, ALL))


# --- the writers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two submissions whose run.json is as hostile as it can be."""
    root = tmp_path_factory.mktemp("hostile")
    samples = make_split(root / "val", 4, 2)
    for k in range(2):
        folder = submit(root / f"s{k}", noisy(samples, 2 + k, k), root / "val")
        said = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
        said |= {
            "model": f"{k} {HOSTILE[7]} {ALL}",  # a name is cut
            "recipe": ALL,
            "device": ALL,
            "speed": {"ms_per_person": 3.0, "device": ALL, "precision": ALL},
        }
        (folder / "run.json").write_text(json.dumps(said))
        score(folder, root / "val", root / "boards")
    write_report(root / "boards", root / "report", note=ALL)
    return root / "report"


def test_leaderboards(boards: Path) -> None:
    _harmless((boards / "leaderboard.html").read_text(), 1)
    _harmless_markdown((boards / "leaderboard.md").read_text(), 3)
    (table,), (tex,) = boards.glob("*.csv"), boards.glob("*.tex")
    _harmless_csv(table.read_text())
    said = tex.read_text()
    assert r"\input" not in said and r"\textbackslash{}input\{/etc/passwd\}" in said
    rows = [line for line in said.splitlines() if r"\textbackslash{}input" in line]
    assert len(rows) == 2 * said.count("toprule") and all(r.endswith(r" \\") for r in rows)
    assert not re.search(r"(?<!\\)[%#~]", "".join(rows))


def test_the_papers_tables(tmp_path: Path) -> None:
    columns = [tables.Column(h, h) for h in ("method", *HOSTILE[:2])]
    table = tables.Table(columns, [(h, h, h) for h in HOSTILE], "Table 2", (ALL,))
    filled = paper_page.Filled(2, table, [{"model": h} for h in HOSTILE])
    page = paper_page.write(tmp_path, tmp_path / "out", [filled])
    _harmless(page.read_text(), 0)
    _harmless_markdown((tmp_path / "out" / "table_2.md").read_text(), 1)
    _harmless_csv((tmp_path / "out" / "table_2.csv").read_text())


def test_the_builds_page_and_tables(tmp_path: Path) -> None:
    out = fake_build.make(tmp_path, evil=True)
    _harmless(report.write_report(out, fake_build.render_of(out), review=status.status_html(out)).read_text(), 1)
    frame = pd.DataFrame({"source": HOSTILE, "count": np.arange(len(HOSTILE)), "ratio": -0.5})
    statistics.write_tables({"table": frame}, tmp_path / "tables")
    said = (tmp_path / "tables" / "table.csv").read_text()
    _harmless_csv(said)
    assert "-0.5" in said
    assert pd.read_parquet(tmp_path / "tables" / "table.parquet")["source"].tolist() == list(HOSTILE)


def test_the_reviews_status_and_its_decisions_in_a_spreadsheet(tmp_path: Path) -> None:
    people = [person(i) for i in range(3)]
    root = write(tmp_path / "build", people)
    for p, note in zip(people, HOSTILE, strict=False):
        say(root, "ann", p.candidate.candidate_id, "preserve", note=note)
    for k, h in enumerate(HOSTILE):
        say(root, "ann", f"{h}{k}", "discard", reason="other" if k % 2 else "")
        say(root, "bob", f"{h}{k}", "preserve")
    _harmless(status.status_html(root, page=True), 0)
    assert "\x1b" not in status.status_text(status.status(root))
    path = tmp_path / "exported.csv"
    decisions.export_decisions(root, path, history=True)
    _harmless_csv(path.read_text())
    back = dict(decisions._rows(path))
    assert {r["candidate_id"] for r in back.values()} >= {f"{h}{k}" for k, h in enumerate(HOSTILE) if "\n" not in h}
