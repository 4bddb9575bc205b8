"""Sphinx: MyST pages, the command line by sphinx-click, the Python interface by autodoc, tables from the code."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import tables  # noqa: E402 found on the path that the line above extends

project = "AHP toolkit"
author = "the authors of the AHP toolkit"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["generated"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]
html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_theme_options = {"show_prev_next": True, "navbar_end": [], "show_toc_level": 2, "navigation_with_keys": False}
html_show_sourcelink = False
html_sidebars: dict[str, list[str]] = {
    page: [] for page in ["quickstart", "build", "review", "occlusion", "models", "storage", "plugins", "design"]
}
smartquotes = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
add_module_names = False


def setup(app: Any) -> None:
    """Write the generated tables before any page is read; escape the stars in help texts such as ``part-*.parquet``."""
    app.connect("builder-inited", lambda _: tables.write(HERE / "generated"))
    app.connect("sphinx-click-process-options", lambda _, __, lines: escape(lines))


def escape(lines: list[str]) -> None:
    """Keep a file pattern's star from being read as emphasis, in place."""
    lines[:] = [re.sub(r"(?<=-)\*(?=\.)", r"\\*", line) for line in lines]
