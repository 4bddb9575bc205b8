"""Training the build's own networks on its own harvest: the box-only humans' segmenter and the body-part parser.

The segmenter may also be asked for initial masks of val and test (N_i), and must then not have seen their people whole.
It is trained before the review, which alone says where val and test end: they take the photos of the lowest hashes,
some (val + test) / preserved of them. So photos of low hashes are kept from training, twice as many as val and test
would take if one candidate in a hundred were preserved (the paper: one in twenty), at most half. A fold's range is
known beforehand. `check_initial` refuses a network where the review's cut reaches further. What draws masks or parts of
people who had none has seen none of theirs, and is not asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime import dry
from ahp_toolkit.stages.review import SplitSizes, Thresholds
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.held_out import HeldOut, held_of

if TYPE_CHECKING:
    from ahp_toolkit.stages.train_networks import Trained

NETWORKS = ("deeplab", "centermask")  # the segmenters that are trained here
MOST, OF_A_HUNDRED = 0.5, 200  # hashes kept at most; and per wanted human, times 1 / candidates


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
    from ahp_toolkit.stages.train_networks import TRAINERS

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
    from ahp_toolkit.stages.train_networks import PARSER, train_parser

    parts = [*_parts(root), *parquet.parts(root / "harvest" / "duplicates")]
    return _said(train_parser(parts, roots, out, PARSER[preset], seed, device, quiet, held_out(root, sizes)), quiet)


def _parts(root: Path) -> list[Path]:
    if not (root / "harvest" / "stage.json").exists():
        raise UserError(f"{root}: expected a finished harvest, found none; run ahp build --stop-after harvest first")
    return parquet.parts(root / "harvest")


def _said(made: Trained, quiet: bool) -> Path:
    if not quiet:
        click.echo(made, err=True)
    return made.path


def held_out(root: Path, sizes: SplitSizes | None = None) -> HeldOut:
    """The photos that a build's networks are not trained on: the fold's, else those of low hashes (see the module).

    Args:
        sizes: of val and test; None: as ``build.json`` says.

    Raises:
        UserError: when there is no harvest to count.
    """
    if sizes is None:
        from ahp_toolkit.storage.build_folder import Build

        said: dict[str, Any] = Build(root).about.get("options", {}).get("sizes", {})
        fold = said.get("fold")
        sizes = SplitSizes(**said | {"fold": (fold[0], fold[1]) if fold else None})
    if sizes.fold is not None:
        k, n = sizes.fold
        return HeldOut((k - 1) / n, k / n)
    candidates = max(1, parquet.count_records(root / "harvest"))
    return HeldOut(0.0, min(MOST, OF_A_HUNDRED * (sizes.val + sizes.test) / candidates))


def check_initial(name: str, weights: str | Path | None, cut: Thresholds) -> None:
    """The network that makes the initial masks of val and test may not have been trained on people of their photos.

    Args:
        name: of the segmenter; one that is not of `NETWORKS` cannot tell, and is not asked.

    Raises:
        UserError: when it was, or does not say on whom it was not.
    """
    if name not in NETWORKS or not weights or not Path(weights).is_file():
        return
    from ahp_toolkit.nets import torch_io
    from ahp_toolkit.segmenters import SEGMENTERS

    held = held_of(torch_io.load_checkpoint(Path(weights), SEGMENTERS.get(name).KIND).meta.get("held_out"))
    if held is None:
        raise UserError(f"{weights}: it does not say which photos it was not trained on; train it again")
    if not held.holds(cut.start, cut.test):
        raise UserError(
            f"{weights}: it was trained on people of val or test: their photos' hashes are in "
            f"[{cut.start:g}, {cut.test:g}), it was kept from {held}; train it with this build's sizes or fold, or ask "
            "for fewer --val-humans and --test-humans"
        )
