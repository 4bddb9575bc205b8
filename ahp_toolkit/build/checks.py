"""What can be told wrong of a build's options before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ahp_toolkit.build.flow import Options
from ahp_toolkit.build.splits import EVERY, Synthesis
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage.locations import Remote

#: Checkpoints end so; other words for weights are names on a hub.
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


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


def check_network(option: str, name: str, weights: str | None, trained: bool) -> None:
    """A plug-in that is trained here needs a checkpoint, or ``--train`` makes one: nobody publishes any.

    Raises:
        UserError: when it has neither, or the checkpoint does not exist.
    """
    registry = PARSERS if option == "parser" else SEGMENTERS
    plugin = registry.get(name) if name in registry.names() else None
    if plugin is None or not plugin.TRAINABLE or weights == "random":
        path = Path(weights or "random")
        if (path.is_absolute() or path.suffix in CHECKPOINTS) and not path.exists():
            raise UserError(f"--{option}-weights {weights}: expected a checkpoint, there is none")
        return
    if weights is None and not trained:
        way = f"--{option}-weights or --train" if option in ("segmenter", "parser") else f"--{option}-weights"
        raise UserError(f"--{option} {name}: has no published weights: expected {way}; {plugin.WEIGHTS}")
    if weights is not None and not Path(weights).exists():
        raise UserError(f"--{option}-weights {weights}: expected a checkpoint, there is none; {plugin.WEIGHTS}")


def _parsed(kind: str) -> bool:
    """Whether a parser can learn from a source of this format."""
    return getattr(SOURCES.get(kind), "HAS_PARSINGS", False)


def check_networks(o: Options, s: Synthesis, stop_after: str | None) -> None:
    """`check_network` for those that the stages up to ``stop_after`` use."""
    train = o.train != "none"
    if stop_after != "harvest":
        check_network("segmenter", o.segmenter, o.segmenter_weights, train)
    if stop_after not in ("harvest", "segment"):
        check_network("parser", o.parser, o.parser_weights, train)
        learns = train and PARSERS.get(o.parser).TRAINABLE and o.parser_weights is None
        if learns and not any(_parsed(o.format_of(name)) for name in o.roots):
            raise UserError(
                f"--parser {o.parser} --train: it learns from body parsings, which "
                f"{' and '.join(filter(_parsed, SOURCES.names()))} have; add --source lip=PATH, or give "
                "--parser-weights"
            )
    if stop_after in (None, "splits"):
        check_network("initial", s.initial, s.initial_weights, False)


def check_device(engine: str, device: str) -> None:
    """Raises `UserError` when this machine is to work on a device that it does not have."""
    if engine == "local" and device not in ("auto", "cpu"):
        from ahp_toolkit.nets.torch_io import pick_device

        pick_device(device)


def check_occluders(o: Options, s: Synthesis) -> None:
    """Raises `UserError` when occluders are asked of a source that the build does not have."""
    for name in s.occluder_sources:
        if name != EVERY and name not in o.roots:
            raise UserError(
                f"--occluder-source {name}: expected a source of this build ({', '.join(sorted(o.roots))}) or {EVERY}; "
                f"add --source {name}:FORMAT=PATH, or name another"
            )


def check_files(o: Options) -> None:
    """Raises `UserError` when a file that an option names does not exist."""
    named = [("decisions", p) for p in o.decisions] + [("scenes", p) for p in (o.scenes,) if p is not None]
    for option, path in (*named, *(("places365", p) for p in o.places365 or ())):
        if not path.is_file():
            raise UserError(f"--{option} {path}: expected a file, there is none; give its path or leave --{option} out")
