"""``ahp build plan``: the words and the wiring; `plan` does the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahp_toolkit.cli.build import FOLDER, build
from ahp_toolkit.core.errors import UserError

if TYPE_CHECKING:
    from ahp_toolkit.build.dry_run import Plan, Step


@click.command(params=list(build.params), context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--like", multiple=True, type=FOLDER, help="A finished build whose timings count here. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def plan(like: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Say what ahp build with the same options would do, how long and how large; make nothing.

    \b
    ahp build plan --source coco=/data/coco --out out/ahp --review provisional

    Times come from the timings of earlier builds in the same folder, or in those of --like; else from rates that were
    measured on named hardware. A count with ~ is estimated.
    """
    from dataclasses import asdict, replace

    from ahp_toolkit.build import build as builder
    from ahp_toolkit.build.dry_run import plan as made

    if not options["sources"] or options["out"] is None:
        raise UserError("ahp build plan: expected --source FORMAT=PATH (at least one) and --out DIR, as for ahp build")
    o, synthesis = builder.options_from(options)
    _check_like(like)
    o = replace(o, out=_local(o.out, options.get("work")))
    found = made(o, synthesis, stop_after=options["stop_after"], like=like)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    for line in lines(found):
        click.echo(line)


def _check_like(like: tuple[Path, ...]) -> None:
    for folder in like:
        if not (folder / "build.json").exists():
            raise UserError(
                f"--like {folder}: expected a finished build (build.json), found none; give another's folder or leave "
                "it out"
            )


def _local(out: Path, work: Path | None) -> Path:
    """The folder whose tables are looked at: of an address the working folder, as far as it holds them."""
    from ahp_toolkit.runtime.publish import folder_of
    from ahp_toolkit.storage.locations import Remote

    if not isinstance(out, Remote):
        return out
    folder = work or folder_of(out)
    click.echo(f"{out}: what stands is told by its working folder {folder}, the store is not asked", err=True)
    return folder


def lines(p: Plan) -> list[str]:
    """The plan as a table, and its sum in words."""
    known_by = list(dict.fromkeys(s.known_by for s in p.steps if s.known_by))
    out = [f"{'stage':16s} {'state':8s} {'items':>20s} {'time':>13s} {'disk':>9s}"]
    out += [_line(s, p.workers, known_by) for s in p.steps]
    out += [f"[{k}] {text}" for k, text in enumerate(known_by, 1)]
    todo = [s for s in p.steps if s.state != "stands"]
    if not todo:
        return [*out, "everything stands; the build would make nothing"]
    at_least = "at least " if p.unknown else "about "
    out.append(f"{at_least}{time_of(p.seconds)} on {p.workers} workers, {size_of(p.bytes)} more in the build folder")
    if p.unknown:
        out.append(f"no rate is known for: {', '.join(p.unknown)}; --like takes one from another build's timings")
    out.append(f"disk: {size_of(p.free)} free there{'' if p.free > 2 * p.bytes else '; THIS IS TOO LITTLE'}")
    networks = sorted({s.network for s in todo if s.network})
    needs = f"{', '.join(networks)} on device {p.device}; worth a GPU" if networks else "no network runs, no GPU needed"
    return [*out, f"networks: {needs}"]


def _line(s: Step, workers: int, known_by: list[str]) -> str:
    from ahp_toolkit.build.dry_run import ALONE

    known = "" if s.items is None else f"{'~' if s.estimated else ''}{s.items:,} {s.unit}"
    wall = None if s.seconds is None else s.seconds / (1 if s.name in ALONE else workers)
    time = "" if s.state == "stands" else "?" if wall is None else time_of(wall)
    disk = "?" if s.bytes is None else size_of(s.bytes)
    note = f" [{known_by.index(s.known_by) + 1}]" if s.known_by and wall else ""
    return f"{s.name:16s} {s.state:8s} {known:>20s} {time + note:>13s} {disk:>9s}"


def time_of(seconds: float) -> str:
    """Seconds in words, to two digits or so."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def size_of(size: float) -> str:
    """Bytes in words."""
    for unit, n in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= n:
            return f"{size / n:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
