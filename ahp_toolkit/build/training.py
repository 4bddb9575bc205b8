"""Training the build's own networks on its own harvest: the segmenter of box-only humans and the body-part parser.

A segmenter may also make the initial masks of val and test (N_i), and must then not have been trained on their people.
It is trained before the review, which alone says where val and test end: they take the photos of the lowest hashes,
some (val + test) / preserved of them. So photos of low hashes are kept from training, twice as many as val and test
would take if one candidate in a hundred were preserved (the paper: one in twenty), at most half. A fold's range is
known beforehand. `check_initial` refuses a network where the review's cut reaches further.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import dry
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.stages.review import SplitSizes, Thresholds
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.held_out import HeldOut, held_of

MOST, OF_A_HUNDRED = 0.5, 200  # hashes kept at most; and per human of val and test, times 1 / candidates


def train(
    registry: Registry, root: Path, name: str, out: Path, how: dict[str, Any], sizes: SplitSizes | None = None
) -> Path:
    """Train a plug-in on the build's harvest; nothing is done when the checkpoint is up to date.

    A segmenter learns from the humans that have masks, a parser from those that have a parsing, crops of photos that
    another source holds included.

    Args:
        how: arguments of `stages.train_networks.How`; ``roots`` beside them, data root by source.
        sizes: of val and test; None: those of ``build.json``.

    Raises:
        UserError: when the plug-in cannot be trained, there is no harvest, or it has too few such humans.
    """
    if not out.exists():
        dry.stop(registry.kind, out)
    from ahp_toolkit.stages.train_networks import Data, How
    from ahp_toolkit.stages.train_networks import train as fit

    if not (root / "harvest" / "stage.json").exists():
        raise UserError(f"{root}: expected a finished harvest, found none; run ahp build --stop-after harvest first")
    parts = parquet.parts(root / "harvest")
    if registry is PARSERS:
        parts = [*parts, *parquet.parts(root / "harvest" / "duplicates")]
    roots = how.pop("roots")
    made = fit(registry, name, Data(parts, roots, held_out(root, sizes)), out, How(**how))
    if not how.get("quiet"):
        click.echo(made, err=True)
    return made.path


def held_out(root: Path, sizes: SplitSizes | None = None) -> HeldOut:
    """The photos that a build's networks are not trained on: the fold's, else those of low hashes (see the module).

    Args:
        sizes: of val and test; None: those of ``build.json``.

    Raises:
        UserError: when there is no harvest to count.
    """
    if sizes is None:
        from ahp_toolkit.storage.build_folder import Build

        options: dict[str, Any] = Build(root).about.get("options", {}).get("sizes", {})
        fold = options.get("fold")
        sizes = SplitSizes(**options | {"fold": (fold[0], fold[1]) if fold else None})
    if sizes.fold is not None:
        k, n = sizes.fold
        return HeldOut((k - 1) / n, k / n)
    candidates = max(1, parquet.count_records(root / "harvest"))
    return HeldOut(0.0, min(MOST, OF_A_HUNDRED * (sizes.val + sizes.test) / candidates))


def check_initial(name: str, weights: str | Path | None, cut: Thresholds) -> None:
    """The network that makes the initial masks of val and test may not have been trained on people of their photos.

    Args:
        name: of the segmenter; one that is not trained here is not checked.

    Raises:
        UserError: when it was, or does not say on whom it was not.
    """
    if name not in SEGMENTERS.names() or not weights or not Path(weights).is_file():
        return
    plugin = SEGMENTERS.get(name)
    if not plugin.TRAINABLE:
        return
    from ahp_toolkit.nets import torch_io

    held = held_of(torch_io.load_checkpoint(Path(weights), plugin.KIND).meta.get("held_out"))
    if held is None:
        raise UserError(f"{weights}: it does not say which photos it was not trained on; train it again")
    if not held.holds(cut.start, cut.test):
        raise UserError(
            f"{weights}: it was trained on people of val or test: their photos' hashes are in "
            f"[{cut.start:g}, {cut.test:g}), it was kept from {held}; train it with this build's sizes or fold, or ask "
            "for fewer --val-humans and --test-humans"
        )
