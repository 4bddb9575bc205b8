"""Checks of a build's configuration before anything runs, and what a user should know when it has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ahp_toolkit.build.config import EVERY, OCCLUDERS, Config
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.stage import finished
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.locations import Remote

#: Checkpoints have these endings; other weights are names on a hub.
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def check(c: Config) -> None:
    """Check all that can be checked without reading data.

    Raises:
        UserError: naming the option, what it expects and the way out.
    """
    if not c.sources:
        raise UserError("ahp build: expected --source FORMAT=PATH (at least one) and --out DIR; see ahp build --help")
    roots = {name: source.path for name, source in c.sources.items()}
    check_place(c.out, roots)
    if c.run.work is not None:
        check_place(c.run.work, roots, "--work")
    s = c.synthesis
    if s.scale and not 0 < s.scale[0] <= s.scale[1]:
        raise UserError(f"--scale: expected 0 < low <= high, got {s.scale[0]:g} to {s.scale[1]:g}")
    for name in s.occluder_sources:
        if name != EVERY and name not in c.sources:
            raise UserError(
                f"--occluder-source {name}: expected a source of this build ({', '.join(sorted(c.sources))}) or "
                f"{EVERY}; add --source {name}:FORMAT=PATH, or name another"
            )
    named = [("decisions", p) for p in c.review.decisions] + [("places365", p) for p in c.review.places365 or ()]
    for option, path in (*named, *([("scenes", c.review.scenes)] if c.review.scenes else [])):
        if not path.is_file():
            raise UserError(f"--{option} {path}: expected a file, there is none; give its path or leave --{option} out")
    _check_networks(c)


def check_place(folder: Path, roots: Mapping[str, Path], option: str = "--out") -> None:
    """A build may lie above its sources (the sample world's do), never among their files.

    Raises:
        UserError: when ``folder`` is a local data root or lies inside one.
    """
    if isinstance(folder, Remote):
        return
    place = folder.resolve()
    for name, root in sorted(roots.items()):
        if not isinstance(root, Remote) and place.is_relative_to(root.resolve()):
            raise UserError(
                f"{option} {folder}: expected a folder outside the data of --source {name}={root}, which a build "
                f"never writes to; give another {option}"
            )


def check_device(c: Config) -> None:
    """Raises `UserError` when this machine is to run networks on a device that it does not have."""
    if c.engine.engine == "local" and c.training.device not in ("auto", "cpu"):
        from ahp_toolkit.nets.devices import pick_device

        pick_device(c.training.device)


def _check_networks(c: Config) -> None:
    """Check the networks of the stages that the build makes."""
    stop, train = c.run.stop_after, c.training.train != "none"
    for option, registry, name in (
        ("segmenter", SEGMENTERS, c.segment.segmenter),
        ("parser", PARSERS, c.parse.parser),
        ("initial", SEGMENTERS, c.synthesis.initial),
    ):
        if name != "simulated" or option != "initial":
            registry.module(name)  # refuses an unknown name
    if stop != "harvest":
        _check_network("segmenter", SEGMENTERS, c.segment.segmenter, c.segment.segmenter_weights, train)
    if stop not in ("harvest", "segment"):
        _check_network("parser", PARSERS, c.parse.parser, c.parse.parser_weights, train)
        learns = train and _trainable(PARSERS, c.parse.parser) and c.parse.parser_weights is None
        if learns and not any(map(_parsed, c.formats.values())):
            raise UserError(
                f"--parser {c.parse.parser} --train: it learns from body parsings, which "
                f"{' and '.join(filter(_parsed, SOURCES.names()))} have; add --source lip=PATH, or give "
                "--parser-weights"
            )
    if stop in (None, "splits") and c.synthesis.initial != "simulated":
        _check_network("initial", SEGMENTERS, c.synthesis.initial, c.synthesis.initial_weights, False)


def _check_network(option: str, registry: Registry, name: str, weights: str | None, trained: bool) -> None:
    """A plug-in that is trained here needs a checkpoint, or ``--train`` makes one: nobody publishes any."""
    if not _trainable(registry, name) or weights == "random":
        path = Path(weights or "random")
        if (path.is_absolute() or path.suffix in CHECKPOINTS) and not path.exists():
            raise UserError(f"--{option}-weights {weights}: expected a checkpoint, there is none")
        return
    source = registry.get(name).WEIGHTS
    if weights is None and not trained:
        way = f"--{option}-weights" if option == "initial" else f"--{option}-weights or --train"
        raise UserError(f"--{option} {name}: has no published weights: expected {way}; {source}")
    if weights is not None and not Path(weights).exists():
        raise UserError(f"--{option}-weights {weights}: expected a checkpoint, there is none; {source}")


def _trainable(registry: Registry, name: str) -> bool:
    return bool(getattr(registry.get(name), "TRAINABLE", False))


def _parsed(kind: str) -> bool:
    """Whether a parser can learn from a source of this format."""
    return bool(getattr(SOURCES.get(kind), "HAS_PARSINGS", False))


def warn_occluders(c: Config, sources: tuple[str, ...]) -> None:
    """One line where COCO was to give the occluders and has none."""
    if sources != c.synthesis.occluder_sources_of(c.formats, {}):
        message = f"{OCCLUDERS} has no masks, those of {', '.join(sources)} occlude; --occluder-source names others"
        logging.event("warning", "warning", message=message, source="bank")
        sys.stderr.write(f"bank: {message}\n")


@dataclass(frozen=True)
class Frozen:
    """A finished split: its digest, and the ids of its humans."""

    digest: str
    humans: frozenset[str]


def frozen(folder: Path) -> Frozen | None:
    """The finished split in a folder; None where there is none, or it is damaged or has nobody."""
    with suppress(UserError):
        done = finished(folder)
        parts = parquet.parts(folder / "humans") if done is not None else []
        ids = frozenset(i for p in parts for i in parquet.read_table(p, ["human_id"])["human_id"].to_pylist())
        return Frozen(done.digest, ids) if done is not None and ids else None
    return None


def warn_replaced(before: Frozen | None, folder: Path) -> None:
    """One line where a finished split was replaced by another one (spec §2: val is fixed for ever once generated)."""
    after = finished(folder)
    if before is None or after is None or before.digest == after.digest:
        return
    now = frozen(folder)
    stayed, were = len(before.humans & (now.humans if now else frozenset())), len(before.humans)
    logging.event("replaced", "warning", split=after.name, stayed=stayed, were=were)
    sys.stderr.write(
        f"{after.name}: replaces the {after.name} of before, {stayed} of its {were} humans stayed; figures on the two "
        "do not compare (to keep a split, copy its folder: see the README)\n"
    )


def warn_left_out(root: Path, given: Iterable[Path], decisions: Iterable[Path]) -> None:
    """One line that names the decision logs which a build was given and that are not among ``decisions``."""
    left = sorted({p.name for p in given} - {p.name for p in decisions})
    if left:
        sys.stderr.write(
            f"{root}: made without the decisions of {', '.join(left)}; give the build's --decisions again\n"
        )


def next_step(c: Config) -> str:
    """What to do next when a build ended well and kept nobody; '' where there is nothing to say."""
    stop = c.run.stop_after
    if stop == "harvest":
        return ""
    masked = finished(c.out / "segment")
    if masked is not None and not masked.counts["out"]:
        if not any(k.endswith("no_mask") for k in masked.dropped):
            return ""
        return "next: give --segmenter, such as mask_rcnn (see ahp doctor): the sources have boxes only, no masks"
    kept = finished(c.out / "review") if stop in (None, "review", "splits") else None
    if kept is None or any(n for k, n in kept.counts.items() if k.startswith("preserve/")):
        return ""
    undecided = any(k.endswith("undecided") for k in kept.dropped)
    return f"next: ahp review --root {c.out}, then the same command again: nobody was kept" if undecided else ""
