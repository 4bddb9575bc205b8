"""Training the build's own networks on its own harvest: the box-only humans' segmenter and the body-part parser."""

from __future__ import annotations

from pathlib import Path

from .core import dry, store
from .core.errors import UserError


def train_segmenter(
    root: Path,
    out: Path,
    roots: dict[str, str],
    preset: str,
    device: str,
    seed: int = 0,
    quiet: bool = False,
    name: str = "deeplab",
) -> Path:
    """Train a segmenter on the harvested humans that have masks; nothing is done when the checkpoint stands already.

    Args:
        name: ``deeplab`` (the paper's segmenter) or ``centermask`` (the paper's N_i, for initial masks).

    Raises:
        UserError: when there is no harvest, or too few humans with masks.
    """
    if not out.exists():
        dry.stop("segmenter", out)
    from .stages.train import TRAINERS

    presets, train = TRAINERS[name]
    train(_parts(root), roots, out, presets[preset], seed, device, quiet)
    return out


def train_parser(
    root: Path, out: Path, roots: dict[str, str], preset: str, device: str, seed: int = 0, quiet: bool = False
) -> Path:
    """Train HRNet on the harvested humans that have a parsing, LIP's crops of photos that stand elsewhere included.

    Raises:
        UserError: when there is no harvest, or too few humans with parsings.
    """
    if not out.exists():
        dry.stop("parser", out)
    from .stages.train import PARSER, train_parser

    parts = [*_parts(root), *store.parts(root / "harvest" / "duplicates")]
    train_parser(parts, roots, out, PARSER[preset], seed, device, quiet)
    return out


def _parts(root: Path) -> list[Path]:
    if not (root / "harvest" / "stage.json").exists():
        raise UserError(f"{root}: expected a finished harvest, found none; run ahp build --stop-after harvest first")
    return store.parts(root / "harvest")
