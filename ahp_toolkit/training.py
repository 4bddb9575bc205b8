"""Training the build's own networks on its own harvest: the box-only humans' segmenter and the body-part parser.

They are trained before the review, so before anybody knows where it will cut val and test: these are the photos of the
lowest hashes, at most 0.2 + 0.1 of the preserved humans, and how many are preserved the review alone says (and says
anew with each word of a reviewer). So all photos of hashes below `KEPT` are kept from them: more than val and test ever
take, up to chance in builds of some dozen humans, and the same whenever one trains, so that nothing is trained twice.
A fold's range is known beforehand. `check_networks` refuses a network where the review's cut reaches further.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotation.review import SplitSizes, Thresholds

from .core import dry, store
from .core.errors import UserError
from .core.held_out import HeldOut, held_of

if TYPE_CHECKING:
    from .stages.train import Trained

#: The plug-ins that are trained here, and their modules.
NETWORKS = {"deeplab": ".segmenters.deeplab", "centermask": ".segmenters.centermask", "hrnet": ".parsers.hrnet"}
KEPT = 0.5  # val and test end near hash 0.3 at the latest; 100 humans put that below 0.5 in all but one of 10^4 builds


def train_segmenter(
    root: Path,
    out: Path,
    roots: dict[str, str],
    preset: str,
    device: str,
    seed: int = 0,
    quiet: bool = False,
    name: str = "deeplab",
    sizes: SplitSizes | None = None,
) -> Path:
    """Train a segmenter on the harvested humans that have masks; nothing is done when the checkpoint stands already.

    Args:
        name: ``deeplab`` (the paper's segmenter) or ``centermask`` (the paper's N_i, for initial masks).
        sizes: of val and test; None: as ``build.json`` says.

    Raises:
        UserError: when there is no harvest, or too few humans with masks.
    """
    if not out.exists():
        dry.stop("segmenter", out)
    from .stages.train import TRAINERS

    presets, train = TRAINERS[name]
    return _said(train(_parts(root), roots, out, presets[preset], seed, device, quiet, held_out(root, sizes)), quiet)


def train_parser(
    root: Path,
    out: Path,
    roots: dict[str, str],
    preset: str,
    device: str,
    seed: int = 0,
    quiet: bool = False,
    sizes: SplitSizes | None = None,
) -> Path:
    """Train HRNet on the harvested humans that have a parsing, LIP's crops of photos that stand elsewhere included.

    Args:
        sizes: of val and test; None: as ``build.json`` says.

    Raises:
        UserError: when there is no harvest, or too few humans with parsings.
    """
    if not out.exists():
        dry.stop("parser", out)
    from .stages.train import PARSER, train_parser

    parts = [*_parts(root), *store.parts(root / "harvest" / "duplicates")]
    return _said(train_parser(parts, roots, out, PARSER[preset], seed, device, quiet, held_out(root, sizes)), quiet)


def _parts(root: Path) -> list[Path]:
    if not (root / "harvest" / "stage.json").exists():
        raise UserError(f"{root}: expected a finished harvest, found none; run ahp build --stop-after harvest first")
    return store.parts(root / "harvest")


def _said(made: Trained, quiet: bool) -> Path:
    if not quiet:
        click.echo(made, err=True)
    return made.path


def held_out(root: Path, sizes: SplitSizes | None = None) -> HeldOut:
    """The photos that a build's networks are not trained on: the fold's, else those of hashes below `KEPT`.

    Args:
        sizes: of val and test; None: as ``build.json`` says.
    """
    if sizes is None:
        about = root / "build.json"
        said: dict[str, Any] = store.read_json(about).get("options", {}).get("sizes", {}) if about.exists() else {}
        fold = said.get("fold")
        sizes = SplitSizes(**said | {"fold": (fold[0], fold[1]) if fold else None})
    if sizes.fold is not None:
        k, n = sizes.fold
        return HeldOut((k - 1) / n, k / n)
    return HeldOut(0.0, KEPT if sizes.val + sizes.test else 0.0)


def check_networks(used: Iterable[tuple[str, str | Path | None]], cut: Thresholds) -> None:
    """No network of a build may have been trained on people of its val or test photos.

    Args:
        used: plug-ins with their weights; asked are those of `NETWORKS`, others cannot tell.

    Raises:
        UserError: when a network was, or does not say on whom it was not.
    """
    for name, weights in used:
        if name in NETWORKS and weights and Path(weights).is_file():
            _check(Path(weights), name, cut)


def _check(path: Path, name: str, cut: Thresholds) -> None:
    from .core import torch_io

    module = importlib.import_module(NETWORKS[name], __package__)
    held = held_of(torch_io.load_checkpoint(path, module.KIND).meta.get("held_out"))
    if held is None:
        raise UserError(f"{path}: it does not say which photos it was not trained on; train it again")
    if not held.holds(cut.start, cut.test):
        raise UserError(
            f"{path}: it was trained on people of val or test: their photos' hashes are in "
            f"[{cut.start:g}, {cut.test:g}), it was kept from {held}; train it with this build's sizes or fold, or ask "
            "for fewer --val-humans and --test-humans"
        )
