"""The reviewers' page GUIDE.md as HTML with its pictures inside, and the making of these pictures."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import markdown

HERE = Path(__file__).parent
GUIDE = HERE / "GUIDE.md"
_STYLE = """body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1.5rem;
background:#16181d;color:#e8eaed}h1,h2{line-height:1.2}img{width:180px;border-radius:8px;vertical-align:top}
table{border-collapse:collapse}td,th{padding:.5rem .7rem;border-bottom:1px solid #3a3f48;text-align:left;
vertical-align:top}code,kbd{background:#2a2e36;padding:.1em .4em;border-radius:4px}a{color:#8ab4f8}"""


def page() -> str:
    """GUIDE.md as one self-contained HTML page."""
    body = markdown.markdown(GUIDE.read_text(), extensions=["tables"])
    body = re.sub(r'src="(guide/[a-z_0-9]+\.png)"', _inline, body)
    return f"<!doctype html><meta charset='utf-8'><title>Guide</title><style>{_STYLE}</style>{body}"


def _inline(match: re.Match[str]) -> str:
    path = HERE / match.group(1)
    data = base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
    return f'src="data:image/png;base64,{data}"'
