"""``ahp build --dry-run``: which stages are up to date, and what is known of the others; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ahp_toolkit.build.build import MAKE, groups
from ahp_toolkit.build.config import Config
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import timing
from ahp_toolkit.runtime.stage import Result, finished
from ahp_toolkit.segmenters import SEGMENTERS

UP_TO_DATE, GOES_ON, TO_MAKE = "up to date", "goes on", "to make"


@dataclass(frozen=True)
class Line:
    """One stage: its state, items (None: unknown) and seconds of one worker in this build's last run of it."""

    name: str
    state: str
    items: int | None = None
    seconds: float | None = None


def dry_run(c: Config) -> list[Line]:
    """The stages that a build would run, in order.

    Up to the first stage that is not up to date the items are counted; from there on they are those of the last run.

    Raises:
        UserError: as the build itself.
    """
    names = list(_names(c))
    lines: list[Line] = []
    for group in groups(c):
        for step in MAKE[group](c):
            if group not in c.run.rebuild and step.up_to_date():
                lines.append(Line(step.name, UP_TO_DATE, _items(c, step.name)))
                continue
            state = GOES_ON if step.begun() else TO_MAKE
            rest = names[names.index(step.name) + 1 :]
            return [
                *lines,
                _line(c, step.name, state, step.total),
                *(_line(c, name, TO_MAKE, None) for name in rest),
            ]
    return lines


def _names(c: Config) -> Iterator[str]:
    """The names of all steps of a build."""
    training = c.training.train != "none"
    for group in groups(c):
        if group == "segment" and training and not c.segment.segmenter_weights:
            yield from ["train segmenter"] if getattr(SEGMENTERS.get(c.segment.segmenter), "TRAINABLE", False) else []
        if group == "parse" and training and not c.parse.parser_weights:
            yield from ["train parser"] if getattr(PARSERS.get(c.parse.parser), "TRAINABLE", False) else []
        if group == "review":
            yield from ["decide"] if c.review.review != "none" else []
            yield from ["scenes"] if c.review.places365 and c.review.scenes is None else []
        yield from ["bank", *SPLITS] if group == "splits" else [group]


def _folder(c: Config, name: str) -> Path:
    return c.out / "splits" / name if name in SPLITS else c.out / name


def _items(c: Config, name: str) -> int | None:
    """What the last run of a stage went over: photos, people, occluders; None where there is no whole result."""
    done: Result | None = None
    with suppress(UserError):
        done = finished(_folder(c, name))
    if done is None:
        return None
    n = done.counts
    if name == "harvest":
        return sum(k for key, k in n.items() if key.startswith("images/"))
    if name in ("segment", "parse", "decide"):
        return n["out"] + n["dropped"]
    return n.get({"review": "out/decisions", "bank": "read"}.get(name, "in"), 0)


def _line(c: Config, name: str, state: str, total: int | None) -> Line:
    """A stage that is to be made: items counted or of the last run, seconds at the pace of the last run."""
    before, seconds = _items(c, name), timing.read(_folder(c, name)).get("worker_seconds")
    items = total if total is not None and name in ("harvest", *SPLITS) else before
    if name.startswith("train "):
        return Line(name, state, total)
    pace = seconds / before if before and seconds is not None else None
    return Line(name, state, items, round(pace * items, 1) if pace is not None and items is not None else None)


def text(lines: list[Line], workers: int) -> Iterator[str]:
    """The lines of a dry run as a table with its sum."""
    yield f"{'stage':16s} {'state':11s} {'items':>12s} {'time':>10s}"
    for x in lines:
        items = "" if x.items is None else f"{x.items:,}"
        wall = "" if x.state == UP_TO_DATE else "?" if x.seconds is None else time_of(x.seconds / workers)
        yield f"{x.name:16s} {x.state:11s} {items:>12s} {wall:>10s}"
    todo = [x for x in lines if x.state != UP_TO_DATE]
    if not todo:
        yield "all stages are up to date; the build would make nothing"
        return
    known = sum(x.seconds or 0.0 for x in todo) / workers
    unknown = [x.name for x in todo if x.seconds is None]
    if len(unknown) < len(todo):
        yield f"{'at least' if unknown else 'about'} {time_of(known)} on {workers} workers, by this build's last runs"
    if unknown:
        yield f"no earlier run in this folder tells the time of: {', '.join(unknown)}"


def time_of(seconds: float) -> str:
    """Seconds as text, to about two digits."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
