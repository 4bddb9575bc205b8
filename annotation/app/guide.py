"""The reviewers' page GUIDE.md as HTML with its pictures inside."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import markdown

HERE = Path(__file__).parents[1]
GUIDE = HERE / "GUIDE.md"
_STYLE = """body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:1.5rem auto 4rem;padding:0 1.5rem;
background:#16181d;color:#e8eaed}h1,h2{line-height:1.2;margin:1.6em 0 .5em}h1{margin-top:0}
img{width:150px;border-radius:8px;display:block}table{border-collapse:collapse;width:100%}
td,th{padding:.55rem .8rem;border-bottom:1px solid #2f343d;text-align:left;vertical-align:middle}
td:first-child{width:170px}code,kbd{background:#2a2e36;padding:.1em .45em;border-radius:4px}a{color:#8ab4f8}"""


def page() -> str:
    """GUIDE.md as one self-contained HTML page."""
    body = markdown.markdown(GUIDE.read_text(encoding="utf-8"), extensions=["tables"])
    body = re.sub(r'src="(guide/[a-z_]+\.png)"', _inline, body)
    return f"<!doctype html><meta charset='utf-8'><title>Guide</title><style>{_STYLE}</style>{body}"


def _inline(match: re.Match[str]) -> str:
    path = HERE / match.group(1)
    data = base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
    return f'src="data:image/png;base64,{data}"'
