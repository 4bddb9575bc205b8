"""One table, five forms: the same text everywhere, safe for each, values as they are in the CSV."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from ahp_toolkit.core.text import from_cell
from ahp_toolkit.report.tables import Cell, Column, Table, from_records, tex

NAN = float("nan")
EVIL = "a|b<script>`x` $\\_é王\n=1"
TABLE = Table(
    columns=(Column("method", number=False), Column("iou", "IoU ↑", "%", digits=1, scale=100), Column("gain_db")),
    rows=(
        ("ours", Cell(0.46825, low=0.441, high=0.492, rank=1, mark="=", note="21 of 22"), Cell(-0.5, rank=2)),
        (EVIL, 0.41, NAN),
        ("=cmd()", Cell(None), 1234567),
    ),
    title="Masks",
    notes=("A note.",),
)


def test_the_terminal_gets_aligned_columns():
    lines = TABLE.text().splitlines()
    assert lines[0] == "Masks" and lines[-1] == "  A note."
    assert lines[1].split() == ["method", "IoU", "↑", "(%)", "gain", "db"]
    assert lines[2].startswith("  ours ") and "46.8= [44.1, 49.2, 21 of 22]" in lines[2] and lines[2].endswith(" -0.5")
    assert lines[4].endswith("1,234,567") and len({len(x) for x in lines[1:3] + lines[4:5]}) == 1


def test_columns_without_names_have_no_heading():
    table = Table((Column("", number=False), Column("")), (("humans", 3),), "Counts")
    assert table.text() == "Counts\n  humans  3"
    assert "<th" not in table.html()


def test_markdown_keeps_its_columns_whatever_the_text():
    lines = TABLE.markdown().splitlines()
    assert lines[1] == "| --- | ---: | ---: |" and "**46.8=** [44.1, 49.2, 21 of 22]" in lines[2]
    assert all(len(re.split(r"(?<!\\)\|", line)) == 5 for line in lines) and "<script" not in TABLE.markdown()


def test_csv_holds_the_values_and_no_formula():
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows[0] == ["method", "iou", "gain_db"]
    assert rows[1] == ["ours", "0.46825", "-0.5"] and rows[2][1:] == ["0.41", ""] and rows[3][1:] == ["", "1234567"]
    assert from_cell(rows[3][0]) == "=cmd()" and rows[3][0][0] == "'"


class Parsed(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_html_escapes_and_sorts_by_the_value():
    page = TABLE.html("sortable")
    parsed = Parsed(page)
    assert set(parsed.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "b", "small", "i", "wbr"}
    assert "<script>" in parsed.text and 'class="n best" data-key="0.46825"' in page
    assert "<b>46.8=</b><small>44.1, 49.2, 21 of 22</small>" in page


def test_latex_is_safe_for_pdflatex_and_fits_the_page():
    wide = Table((TABLE.columns[0], *TABLE.columns[1:] * 12), tuple((r[0], *r[1:] * 12) for r in TABLE.rows))
    for table, panels in ((TABLE, 1), (wide, 4)):
        source = table.latex()
        assert source.count(r"\begin{tabular}") == panels == source.count("method &")
        for line in source.splitlines():
            if line.endswith(r"\\") and "tiny" not in line:
                assert len(re.sub(r"\\[a-z]+|[{}$]", "", line.split("&", 1)[1])) < 130
        outside = re.sub(r"\\ifdefined\\Uchar .*?\\else", "", source)
        assert outside.isascii() and r"\textbf{46.8=}" in source and r"\underline{$-$0.5}" in source
        assert r"{\tiny 44.1, 49.2, 21 of 22}" in source and r"IoU $\uparrow$ (\%)" in source


def test_tex_escapes():
    assert tex("a_b & 50% -3.5 [-1, 2] x-2") == r"a\_b \& 50\% $-$3.5 [$-$1, 2] x-2"
    assert tex("José Müller, Łódź, Å") == r"Jos\'{e} M\"{u}ller, \L{}\'{o}d\'{z}, \r{A}"
    assert tex("王a") == r"{\ifdefined\Uchar 王\else [U+738B]\fi}a"
    assert tex("\\x{1}^~") == r"\textbackslash{}x\{1\}\textasciicircum{}\textasciitilde{}"


def test_records_may_lack_keys_and_rows_may_not():
    table = from_records([{"a": 1}, {"b": 2.5}], (Column("a"), Column("b", format=lambda v: f"<{v}>")))
    assert table.text().splitlines()[1:] == ["  1      –", "  –  <2.5>"]
    with pytest.raises(ValueError, match="expected 3 cells in a row, got 1"):
        Table(TABLE.columns, (("x",),))
