"""Text from data, made safe for where it is shown: a terminal, Markdown, a spreadsheet. (HTML: jinja2 escapes.)

A model's name, a reason, a file name or a note is anybody's text: it may hold escape sequences that rewrite a terminal,
markup that runs in a browser, or a formula that a spreadsheet evaluates.
"""

from __future__ import annotations

import re
import unicodedata

from ahp_toolkit.core import hashing

#: Controls, invisible and direction-changing characters, lone surrogates, line and paragraph separators.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`|"} | {"<": "&lt;", ">": "&gt;"})
#: What makes a link, a picture or a definition of one out of a text in brackets.
_AFTER_BRACKET = re.compile(r"\](?=[(\[:])")
#: What a cell that a spreadsheet takes for a formula begins with (also in full width).
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_QUOTE = "'"
LONGEST_LINE = 2000
_ID_MARKS = str.maketrans("/#~", "___")
#: Characters of a file name made of an id, without its ending: some systems take 255 bytes in all.
LONGEST_STEM = 120


def one_line(text: object) -> str:
    """The text on one line, with what cannot be seen written out: a line feed as a blank, the rest as ``\\x1b``."""
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(_shown(c) for c in line)


def short_line(text: object) -> str:
    """`one_line`, with the middle of what is longer than LONGEST_LINE characters left out."""
    line, half = str(text), LONGEST_LINE // 2
    return one_line(line if len(line) <= LONGEST_LINE else f"{line[: half - 2]} … {line[-half:]}")


def _shown(c: str) -> str:
    if c in "\n\r\t\u2028\u2029":
        return " "
    if unicodedata.category(c) not in _UNSEEN:
        return c
    return c.encode("unicode_escape").decode("ascii")


def markdown(text: object) -> str:
    """The text inside a Markdown cell or line: no column, code, link, picture or HTML of its own."""
    return _AFTER_BRACKET.sub(r"]\\", one_line(text).translate(_MARKDOWN))


def to_cell(value: object) -> object:
    """A value for a CSV: text that a spreadsheet would take for a formula gets a quote in front; `from_cell` undoes it.

    Numbers, also written as text, stay as they are.
    """
    if not isinstance(value, str) or not value.startswith((*_FORMULA, _QUOTE)):
        return value
    if value.startswith(_QUOTE):
        return _QUOTE + value if value.lstrip(_QUOTE).startswith(_FORMULA) else value
    return value if _is_number(value) else _QUOTE + value


def from_cell(text: str) -> str:
    """The inverse of `to_cell`."""
    return text[1:] if text.startswith(_QUOTE) and text.lstrip(_QUOTE).startswith(_FORMULA) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


def file_stem(record_id: str) -> str:
    """An id as a file name without its ending, on any system: ``val/coco/1#2~0`` becomes ``val_coco_1_2_0``.

    Other characters than letters, digits, ``-`` and ``_`` become ``_`` too, and a hash keeps two such ids apart. A
    stem's own stem is itself.
    """
    plain = record_id.translate(_ID_MARKS)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", plain)
    if safe == plain and len(safe) <= LONGEST_STEM:
        return safe
    return f"{safe[: LONGEST_STEM - 9]}_{hashing.digest_value(record_id)[:8]}"
