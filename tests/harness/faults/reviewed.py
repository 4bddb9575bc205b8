"""The cells of the commands below ``ahp review``: what they write beside the reviewers' logs, and into them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.harness.faults import cells, child
from tests.harness.faults.cells import Cell, Digest, fingerprint, pooled, review_base

PEOPLE = ("discard", "preserve", "refine", "preserve", "refine", "discard", "preserve", "refine", "preserve")
MODULES = (
    "annotation.exchange.commands",
    "annotation.exchange.masks",
    "ahp_toolkit.decisions.triage.triage",
    "ahp_toolkit.decisions.status",
)
LOGS = ("root/decisions/*.jsonl",)


def review_cells() -> list[Cell]:
    """The commands that need no network, on a small build with words of two reviewers."""
    on: dict[str, Any] = {"group": "review", "prepare": spoken}
    marks = ("root/features/stage.json", "root/.features-*/shard-*.json")
    triage = ("review", "triage", "--root", "root", "--audit", "0.3", "--workers")
    shown = child.command("review", "status", "--root", "root", "--html", "page.html")
    given = ("review", "import", "--root", "root", "--reviewer", "carl")
    out = child.command(
        "review", "export", "--root", "root", "--decisions", "d.csv", "--coco", "m.json", "--png", "masks"
    )
    return [
        Cell("review status", shown, ("page.html",), **on),
        Cell(
            "review triage", child.command(*triage, "1"), ("root/features/**/*", "root/triage/*"), marks,
            pooled=pooled(child.command(*triage, "2")), **on,
        ),
        Cell("review export", out, ("d.csv", "m.json", "masks/*"), **on),
        Cell("import decisions", child.command(*given, "in.csv"), LOGS, LOGS, _logged, **on),
        Cell("import masks", child.command(*given, "in.json"), ("root/refine/*",), (), proposed, **on),
    ]  # fmt: skip


def compose_cells() -> list[Cell]:
    """Composites of a finished build: proposed, and those that were passed written as its test split."""
    propose = child.command("review", "compose", "--root", "out", "--workers", "1")
    write = child.command("review", "compose", "--root", "out", "--write")
    proposals, test = "out/compose", "out/splits"
    return [
        Cell(
            "compose", propose, (f"{proposals}/**/*",),
            (f"{proposals}/proposals/stage.json", f"{proposals}/.proposals-*/shard-*.json"),
            before="splits", reads=True,
        ),
        Cell(
            "compose --write", write, (f"{test}/test/**/*",),
            (f"{test}/test/stage.json", f"{test}/.test-*/shard-*.json"),
            before="compose", prepare=_voted, reads=True,
        ),
    ]  # fmt: skip


def spoken(work: Path) -> None:
    """A build with people, decisions on most of them, and files of a third reviewer to import."""
    from ahp_toolkit.core.records import Decision
    from ahp_toolkit.decisions.candidates import Candidates
    from ahp_toolkit.decisions.log import append
    from annotation.exchange import decisions, masks

    review_base(work)
    root = work / "root"
    ids = sorted(Candidates(root))
    digests = Candidates(root).mask_digests(ids)
    for who, some in (("carl", ids[1:]), ("ann", ids), ("bob", ids[2:])):
        for i, (cid, verdict) in enumerate(zip(some, PEOPLE, strict=False)):
            d = Decision(cid, verdict, who, digests[cid], seconds=2.0, at=_at(i))
            append(root / "decisions" / f"{who}.jsonl", d)
        if who == "carl":  # his decisions come by a file
            decisions.export_decisions(root, work / "in.csv")
            cells.clear(root / "decisions")
    masks.export_coco(root, work / "in.json")
    said = json.loads((work / "in.json").read_text())
    for note in said["annotations"]:
        note["segmentation"] = _moved(note["segmentation"])
    (work / "in.json").write_text(json.dumps(said))


def warm(folder: Path) -> None:
    """Let this process import what the commands import when they first run."""
    from ahp_toolkit.decisions import status
    from ahp_toolkit.decisions.triage import triage

    spoken(folder)
    triage.run_triage(folder / "root")
    status.status_html(folder / "root", page=True)


def _at(i: int) -> str:
    return f"2026-01-01T00:00:{i:02d}.000+00:00"


def _moved(rle: dict[str, Any]) -> dict[str, Any]:
    """The mask two px to the right, as somebody who corrects it would leave it."""
    from ahp_toolkit.core.masks import encode, from_rle

    mask = encode(np.roll(from_rle(rle["size"], rle["counts"], *rle["size"]).decode(), 2, axis=1))
    return {"size": rle["size"], "counts": mask.counts.decode("ascii")}


def _voted(work: Path) -> None:
    """Every proposal is picked, and passed by two others."""
    from ahp_toolkit.decisions import votes

    root = work / "out"
    for pid in sorted(votes.views(root)):
        for who, action in (("ed", "pick"), ("ann", "pass"), ("bob", "pass")):
            votes.act(root, who, pid, action)


def proposed(folder: Path) -> Digest:
    """The proposals as they are read, but for when they came; every other file."""
    from ahp_toolkit.decisions.proposals import Proposal
    from ahp_toolkit.storage import parquet

    found = fingerprint(folder)
    for path in (folder / "root" / "refine").glob("part-*.parquet"):
        rows = repr([replace(p, at="") for p in parquet.read_records(path, Proposal)])
        found[str(path.relative_to(folder))] = hashlib.sha256(rows.encode()).hexdigest()
    return found


def _logged(folder: Path) -> Digest:
    """The entries of every log; nothing beside it that was not there before."""
    from ahp_toolkit.decisions.log import read_entries, to_json

    logs = sorted((folder / "root" / "decisions").glob("*.jsonl"))
    found = {log.name: json.dumps([to_json(e) for e in read_entries(log)]) for log in logs}
    return found | {k: v for k, v in fingerprint(folder).items() if "root/decisions/" not in k}
