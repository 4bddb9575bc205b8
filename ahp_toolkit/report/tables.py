"""The one table printer: a `Table` as terminal text, Markdown, CSV, LaTeX (booktabs) or HTML.

A row holds plain values, which their column formats, or `Cell`s, which add an interval, a note and a rank::

    table = Table(
        columns=(Column("method"), Column("iou", "IoU ↑", unit="%", digits=1, scale=100)),
        rows=(("ours", Cell(0.468, low=0.441, high=0.492, rank=1)), ("theirs", 0.41)),
        title="Invisible masks",
    )
    print(table.text())   # table.markdown(), table.csv(), table.latex(), table.html()

Text that comes from data is made safe for each of them. CSV holds values as they are; all others show the same text.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ahp_toolkit.core import text

#: Shown for None and NaN.
NOTHING = "–"
#: Characters of the \\scriptsize font in a line of \\textwidth in a two-column paper, and the blanks between columns.
_TEX_LINE, _TEX_GAP = 125, 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: the heading in the CSV, and everywhere else if ``title`` is empty ("_" becomes a blank).
        title: the heading that people read.
        unit: printed behind the heading.
        number: whether the column holds numbers, which are aligned right; False aligns left.
        digits: digits after the point of a float; None: four significant digits, fewer after the point of large ones.
        scale: a number is multiplied by it where people read it (100 for per cent); not in the CSV.
        format: makes the text of a value instead of ``digits`` and ``scale``.
        hint: a definition, shown in HTML when the pointer rests on the heading.
    """

    name: str
    title: str = ""
    unit: str = ""
    number: bool = True
    digits: int | None = None
    scale: float = 1.0
    format: Callable[[Any], str] | None = None
    hint: str = ""

    @property
    def heading(self) -> str:
        """Title and unit."""
        title = self.title or self.name.replace("_", " ")
        return f"{title} ({self.unit})" if self.unit else title

    def show(self, value: object) -> str:
        """A value as the text that people read, on one line."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return NOTHING
        if self.format is not None:
            return self.format(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return text.one_line(value)
        scaled = value * self.scale if self.scale != 1 else value
        if self.digits is not None:
            return f"{scaled:,.{self.digits}f}"
        if isinstance(scaled, int) or (scaled == round(scaled) and abs(scaled) >= 10):
            return f"{scaled:,.0f}"
        return f"{scaled:,.1f}" if abs(scaled) >= 1000 else f"{scaled:,.4g}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with what belongs to it.

    ``low`` and ``high`` bound an interval in the value's unit; ``mark`` follows the text (``=`` for a tie); ``note``
    is small print ("21 of 22"); ``rank`` 1 is shown as the best, 2 as the second; ``hint`` and ``colour`` (of a dot
    before the text) are for HTML alone. ``shown`` replaces the text that the column would make.
    """

    value: Any = None
    shown: str = ""
    low: float | None = None
    high: float | None = None
    mark: str = ""
    note: str = ""
    rank: int = 0
    hint: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, rows of values or `Cell`s, a title and notes printed below."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: expected {len(self.columns)} cells in a row, got {len(row)}")

    def text(self) -> str:
        """For a terminal: title, aligned columns, notes; no line feed at the end."""
        body = [[_beside(c, cell) for c, cell in self._cells(row)] for row in self.rows]
        lines = [[c.heading for c in self.columns], *body] if any(c.name for c in self.columns) else body
        widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(self.columns))]
        out = [text.one_line(self.title)] if self.title else []
        for line in lines:
            parts = zip(line, widths, self.columns, strict=True)
            out.append("  " + "  ".join(t.rjust(w) if c.number else t.ljust(w) for t, w, c in parts).rstrip())
        return "\n".join([*out, *(f"  {text.one_line(n)}" for n in self.notes)])

    def markdown(self) -> str:
        """A Markdown table without title and notes; the best figure of a column is bold."""

        def shown(column: Column, cell: Cell) -> str:
            first = text.markdown(_first(column, cell))
            rest = text.markdown(_beside(column, cell).removeprefix(_first(column, cell)))
            return (f"**{first}**" if cell.rank == 1 else first) + rest

        lines = [
            [text.markdown(c.heading) for c in self.columns],
            ["---:" if c.number else "---" for c in self.columns],
        ]
        lines += [[shown(c, cell) for c, cell in self._cells(row)] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """The values with a heading line: floats in full, None and NaN empty, no cell that a spreadsheet evaluates."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([text.to_cell(c.name) for c in self.columns])
        for row in self.rows:
            values = [cell.value for _, cell in self._cells(row)]
            writer.writerow([None if v != v else text.to_cell(v) for v in values])
        return out.getvalue()

    def latex(self, line: int = _TEX_LINE) -> str:
        r"""A booktabs ``table*`` that fits a two-column page; intervals are below their figures.

        Columns that do not fit into ``line`` characters go to further panels below, which repeat the first column.
        The best figure of a column is bold, the second underlined. It compiles with pdfLaTeX whatever the text holds.
        """
        out = ["% needs \\usepackage{booktabs}", r"\begin{table*}", r"\centering\scriptsize"]
        if self.title:
            out.append(f"\\caption{{{tex(self.title)}}}")
        for k, panel in enumerate(self._panels(line)):
            out += [r"\par\medskip"] if k else []
            out.append(f"\\begin{{tabular}}{{{''.join('r' if self.columns[i].number else 'l' for i in panel)}}}")
            out += [r"\toprule", _tex_row(tex(self.columns[i].heading) for i in panel), r"\midrule"]
            for row in self.rows:
                cells = list(self._cells(row))
                out.append(_tex_row(_tex_cell(*cells[i]) for i in panel))
                below = [_under(*cells[i]) for i in panel]
                if any(below):
                    out.append(_tex_row(f"{{\\tiny {tex(b)}}}" if b else "" for b in below))
            out += [r"\bottomrule", r"\end{tabular}"]
        out += [f"\\par\\smallskip {tex(n)}" for n in self.notes]
        return "\n".join([*out, r"\end{table*}"]) + "\n"

    def _panels(self, line: int) -> list[list[int]]:
        """The columns of each panel, the first column in front of every one."""
        widths = [float(len(c.heading)) for c in self.columns]
        for row in self.rows:
            sizes = [max(len(_first(*c)), 0.8 * len(_under(*c))) for c in self._cells(row)]
            widths = [max(pair) for pair in zip(widths, sizes, strict=True)]
        panels: list[list[int]] = [[0]]
        for i in range(1, len(self.columns)):
            used = sum(widths[k] + _TEX_GAP for k in panels[-1])
            if used + widths[i] > line and len(panels[-1]) > 1:
                panels.append([0])
            panels[-1].append(i)
        return panels

    def html(self, css: str = "") -> str:
        """A ``table`` element of the class ``css``, everything from data escaped, without title and notes.

        A cell's raw value is its attribute ``data-key``, for sorting. Classes: ``n`` a number, ``best``, ``second``.
        """
        heads = "".join(
            f"<th{_attributes(('class', 'n' * c.number), ('title', c.hint))}>{_breakable(c.heading)}</th>"
            for c in self.columns
        )
        rows = "".join(
            "<tr>" + "".join(_html_cell(c, cell) for c, cell in self._cells(row)) + "</tr>\n" for row in self.rows
        )
        head = f"<thead><tr>{heads}</tr></thead>\n" if any(c.name for c in self.columns) else ""
        return f"<table{_attributes(('class', css))}>\n{head}<tbody>\n{rows}</tbody></table>"

    def _cells(self, row: Sequence[Any]) -> list[tuple[Column, Cell]]:
        return [(c, as_cell(v)) for c, v in zip(self.columns, row, strict=True)]


def from_records(records: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str = "") -> Table:
    """A table of mappings; a key that a record lacks is shown as nothing."""
    return Table(columns, [[r.get(c.name) for c in columns] for r in records], title)


def as_cell(value: object) -> Cell:
    """The value itself if it is a `Cell`, else a cell of it."""
    return value if isinstance(value, Cell) else Cell(value)


def _first(column: Column, cell: Cell) -> str:
    """The figure with its mark."""
    return text.one_line(cell.shown or column.show(cell.value)) + cell.mark


def _under(column: Column, cell: Cell) -> str:
    """Interval and note, which are below the figure or in brackets behind it."""
    known = cell.low is not None and cell.high is not None and not math.isnan(cell.low) and not math.isnan(cell.high)
    interval = f"{column.show(cell.low)}, {column.show(cell.high)}" if known else ""
    return ", ".join(t for t in (interval, text.one_line(cell.note)) if t)


def _beside(column: Column, cell: Cell) -> str:
    """All of a cell on one line."""
    under = _under(column, cell)
    return f"{_first(column, cell)} [{under}]" if under else _first(column, cell)


def _attributes(*pairs: tuple[str, str]) -> str:
    return "".join(f' {k}="{html.escape(v)}"' for k, v in pairs if v)


def _breakable(heading: str) -> str:
    """A heading that may wrap after its underscores, slashes and blanks."""
    return re.sub(r"([_/])", r"\1<wbr>", html.escape(heading))


def _html_cell(column: Column, cell: Cell) -> str:
    kinds = " ".join(k for k in ("n" if column.number else "", {1: "best", 2: "second"}.get(cell.rank, "")) if k)
    key = "" if cell.value is None or cell.value != cell.value else str(cell.value)
    shown = html.escape(_first(column, cell))
    shown = f"<b>{shown}</b>" if cell.rank in (1, 2) else shown
    dot = f'<i class="dot" style="background:{html.escape(cell.colour)}"></i>' if cell.colour else ""
    under = _under(column, cell)
    small = f"<small>{html.escape(under)}</small>" if under else ""
    names = (("class", kinds), ("data-key", key), ("data-label", column.heading), ("title", cell.hint))
    return f"<td{_attributes(*names)}>{dot}{shown}{small}</td>"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "−": "$-$", "–": "--", "—": "---", "…": r"\ldots{}", "±": r"$\pm$",
    "×": r"$\times$", "†": r"$\dagger$", "·": r"$\cdot$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "∞": r"$\infty$", "≥": r"$\ge$", "≤": r"$\le$", "²": "$^2$", "“": "``", "”": "''", "‘": "`", "’": "'",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
    "œ": r"\oe{}", "Œ": r"\OE{}", "ı": r"\i{}",
}  # fmt: skip
#: Combining accents and their macros in LaTeX's default font encoding.
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c",
}  # fmt: skip
_NEGATIVE = re.compile(r"(?<![\w.])-(?=[\d.])")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")


def tex(value: object) -> str:
    r"""Text for LaTeX on one line: specials escaped, a minus before a number, accents as macros.

    Scripts that pdfLaTeX has no letters for are kept for LuaLaTeX and XeLaTeX (``\ifdefined\Uchar``); pdfLaTeX prints
    their code points instead of stopping.
    """
    shown = _NEGATIVE.sub("−", text.one_line(value))
    return _FOREIGN.sub(_foreign, "".join(map(_tex_character, shown)))


def _tex_character(c: str) -> str:
    if c.isascii() or c in _TEX:
        return _TEX.get(c, c)
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return c


def _foreign(found: re.Match[str]) -> str:
    points = " ".join(f"U+{ord(c):04X}" for c in found[0])
    return f"{{\\ifdefined\\Uchar {found[0]}\\else [{points}]\\fi}}"


def _tex_row(cells: Any) -> str:
    return " & ".join(cells) + r" \\"


def _tex_cell(column: Column, cell: Cell) -> str:
    shown = tex(_first(column, cell))
    return {1: f"\\textbf{{{shown}}}", 2: f"\\underline{{{shown}}}"}.get(cell.rank, shown)
