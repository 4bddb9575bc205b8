"""The build's page: one HTML file that needs nothing else, not even a network. All that comes from data is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import jinja2
import pandas as pd

from ahp_toolkit import __version__
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.report import plots, sheets, statistics
from ahp_toolkit.report.tables import Column, Table
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import files, images
from ahp_toolkit.storage.build_folder import STAGES, Build, Render
from ahp_toolkit.storage.images import Rgb

_PACKAGES = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "pycocotools", "torch")
_EXAMPLES = 5
_STEPS = {"harvest": "Harvested", "segment": "Segmented", "parse": "Parsed", "review": "Kept"}
_CAPTIONS = {
    "aspect_ratio": "Height divided by width of the preserved humans' boxes.",
    "scenes": "Scene of the photos of preserved humans.",
    "occlusion": "Share of the person that is hidden; dashed: the density requested for the split.",
    "size": "Square root of the mask's area.",
    "drops": "Reasons for which records were dropped, in all stages.",
}


def write_report(out: Path, render: Render | None = None, seed: int = 0, review: str = "") -> Path:
    """Write the tables, the charts and ``report/index.html`` of a build folder, and return the page's path.

    Args:
        out: the build folder; sections of stages that have not run are empty.
        render: makes the pixels of a sample; without it the sheets of samples show masks only.
        seed: of the choice that the contact sheets show.
        review: the state of the review, an HTML section that is escaped already.

    Raises:
        UserError: when there is no such folder, or a file of it is damaged.
    """
    build = Build(out)
    tables = statistics.tables(build)
    folder = out / "report"
    statistics.write_tables(tables, folder / "tables")
    charts = plots.write_plots(tables, folder / "pictures")
    shown = [*sheets.candidate_sheets(build, seed), *sheets.sample_sheets(build, render, seed)]
    page = _page(build, tables, charts, shown, review)
    with files.atomic(folder / "index.html", "w") as f:
        f.write(page)
    return folder / "index.html"


def _page(
    build: Build, tables: statistics.Tables, charts: dict[str, str], shown: Sequence[sheets.Sheet], review: str
) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    env = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["picture"] = _inline
    env.filters["parts"] = _parts
    first = tables["table_1"]  # its reasons for dropping have a table of their own
    script = loader.get_source(env, "report.js")[0]
    pinned = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return env.get_template("report.html").render(
        provisional=build.provisional,
        sample_world=build.options.get("review") == "oracle",
        review=review,
        script=script,
        script_hash=pinned,
        funnel=_funnel(build, tables),
        tables={name: table_html(frame) for name, frame in tables.items()},
        table_1=table_html(first[[c for c in first.columns if not str(c).startswith("drop:")]]),
        charts=[(n, _data_uri(svg.encode(), "image/svg+xml"), _caption(n)) for n, svg in charts.items()],
        sheets=shown,
        examples=_examples(build),
        facts=_facts(build),
        sources=_sources(build),
        keys=[
            (s, json.dumps(build.stage_record(s).key, indent=1, sort_keys=True))
            for s in STAGES
            if build.stage_record(s).key
        ],
    )


def _caption(chart: str) -> str:
    return _CAPTIONS[chart.partition("_")[0] if chart.startswith("occlusion") else chart]


def _parts(text: str) -> list[str]:
    """The pieces between which an id may wrap: after its separators, never within a number."""
    return re.findall(r"[^/#~]*[/#~]|[^/#~]+", text)


def _inline(pixels: Rgb) -> str:
    """RGB uint8 [H, W, 3] as a data URI (WebP)."""
    return _data_uri(images.encode(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 82]), "image/webp")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _funnel(build: Build, tables: statistics.Tables) -> list[dict[str, Any]]:
    """The steps with their widths in per cent, their drop reasons, and whether their counts add up."""
    frame = tables["funnel"]
    if frame.empty:
        return []
    top = max(1, int(frame["came_in"].max()), int(frame["went_on"].max()))
    steps = [_step("Read", int(frame["came_in"].iloc[0]), top, "humans in the sources")]
    for step in frame.to_dict("records"):
        reasons: dict[str, int] = {}
        for (_, reason), n in build.drop_counts(str(step["step"])).items():
            reasons[reason] = reasons.get(reason, 0) + n
        ranked = sorted(reasons.items(), key=lambda kv: (-kv[1], kv[0]))
        note = f"{step['came_in']:,} in = {step['went_on']:,} on + {step['dropped']:,} dropped"
        left = int(step["unaccounted"])
        more = {"reasons": ranked, "adds_up": left == 0, "left": left}
        steps.append(_step(_STEPS[str(step["step"])], int(step["went_on"]), top, note) | more)
    samples = int(tables["splits"]["samples"].sum())
    if samples:
        parts = ", ".join(f"{r['samples']:,} {r['split']}" for r in tables["splits"].to_dict("records") if r["samples"])
        steps.append(_step("Samples", samples, max(top, samples), parts) | {"kind": "samples"})
    return steps


def _step(label: str, count: int, top: int, note: str) -> dict[str, Any]:
    share = 100 * count / top
    return {"label": label, "count": count, "width": f"{share:.2f}", "note": note, "adds_up": True, "reasons": []}


def table_html(frame: pd.DataFrame) -> str:
    """A data frame as a sortable table of the page, everything escaped."""
    columns = [
        Column(
            str(name),
            number=pd.api.types.is_numeric_dtype(frame[name]),
            format=(lambda v: f"{100 * v:.2f} %") if "ratio" in str(name) or "share" in str(name) else None,
        )
        for name in frame.columns
    ]
    table = Table(columns, list(frame.itertuples(index=False, name=None)))
    empty = "" if len(frame) else '<p class="muted">No record has come this far.</p>'
    return f'<div class="scroll">{table.html("sortable")}</div>{empty}'


def _examples(build: Build) -> list[tuple[str, str, list[Dropped]]]:
    """(stage, reason, the first rejects) in the order of the build."""
    found: dict[tuple[str, str], list[Dropped]] = {}
    for stage in STAGES:
        for dropped in build.dropped(stage):
            some = found.setdefault((stage, dropped.reason), [])
            if len(some) < _EXAMPLES:
                some.append(dropped)
    return [(stage, reason, some) for (stage, reason), some in found.items()]


def _facts(build: Build) -> list[tuple[str, str]]:
    record = build.record
    facts = [("seed", str(record.get("seed", "not recorded")))]
    facts += [(f"option {k}", json.dumps(v, ensure_ascii=False)) for k, v in sorted(record.get("options", {}).items())]
    facts.append(("ahp-toolkit", __version__))
    versions = record.get("versions") or {p: _version(p) for p in _PACKAGES}
    return facts + [(str(k), str(v)) for k, v in sorted(versions.items())]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _sources(build: Build) -> list[tuple[str, str, str]]:
    """(source, licence, home page) of every source of the build."""
    known = set(SOURCES.names())
    rows = []
    for name in sorted(build.roots):
        kind = build.formats.get(name, name)
        module = SOURCES.get(kind) if kind in known else None
        licence = str(getattr(module, "LICENCE", "not a source of the registry"))
        rows.append((name, licence, str(getattr(module, "HOMEPAGE", ""))))
    return rows
