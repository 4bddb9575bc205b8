"""STAGE train: a build's own networks on its own harvest, the segmenter of box-only humans and the body-part parser.

A segmenter may also make the initial masks of val and test (N_i), and must then not have been trained on their people.
It is trained before the review, which alone says where val and test end: they take the photos of the lowest hashes,
some (val + test) / preserved of them. So photos of low hashes are kept from training, twice as many as val and test
would take if one candidate in a hundred were preserved (the paper: one in twenty), at most half. A fold's range is
known beforehand. `check_initial` refuses a network where the review's cut reaches further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.stages.review import SplitSizes, Thresholds
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.held_out import HeldOut, held_of

MOST, OF_A_HUNDRED = 0.5, 200  # hashes kept at most; and per human of val and test, times 1 / candidates


@dataclass(frozen=True)
class Training:
    """The step: one plug-in trained on the harvest of the build ``root``; ``to`` is the checkpoint, None the build's.

    A segmenter learns from the humans that have masks, a parser from those that have a parsing, crops of photos that
    another source holds included.
    """

    registry: Registry
    network: str
    root: Path
    roots: Mapping[str, str]
    preset: str
    device: str
    sizes: SplitSizes
    seed: int = 0
    to: Path | None = None

    @property
    def name(self) -> str:
        """See `Step.name`."""
        return f"train {self.registry.kind}"

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.to or self.root / "weights" / f"{self.network}.safetensors"

    @property
    def total(self) -> int | None:
        """Steps of the training."""
        steps: int = self.registry.get(self.network).PRESETS[self.preset].steps
        return steps

    def up_to_date(self) -> bool:
        """Whether a checkpoint of this very training is there."""
        if not self.path.exists():
            return False
        from ahp_toolkit.stages.train_networks import is_trained

        return is_trained(*self._what(), self._how(quiet=True))

    def begun(self) -> bool:
        """Whether a training was stopped in the middle."""
        return self.path.with_name(f".{self.path.name}.partial").exists()

    def run(self, engine: Engine, quiet: bool = False, again: bool = False) -> Result:
        """Train in this process, or do nothing where the checkpoint is up to date.

        Raises:
            UserError: when the plug-in cannot be trained, there is no harvest, or it has too few such humans.
        """
        from ahp_toolkit.stages.train_networks import train

        if again:
            self.path.unlink(missing_ok=True)
        fresh = not self.path.exists()
        made = train(*self._what(), self._how(quiet))
        if not quiet:
            click.echo(made, err=True)
        return Result(self.name, self.path.parent, {}, {}, "", fresh)

    def _what(self) -> tuple[Registry, str, Any, Path]:
        from ahp_toolkit.stages.train_networks import Data

        if not (self.root / "harvest" / "stage.json").exists():
            raise UserError(
                f"{self.root}: expected a finished harvest, found none; run ahp build --stop-after harvest first"
            )
        parts = parquet.parts(self.root / "harvest")
        if self.registry is PARSERS:
            parts = [*parts, *parquet.parts(self.root / "harvest" / "duplicates")]
        data = Data(parts, self.roots, held_out(self.root, self.sizes))
        return self.registry, self.network, data, self.path

    def _how(self, quiet: bool) -> Any:
        from ahp_toolkit.stages.train_networks import How

        return How(self.preset, self.seed, self.device, quiet)


def held_out(root: Path, sizes: SplitSizes) -> HeldOut:
    """The photos that a build's networks are not trained on: the fold's, else those of low hashes (see the module).

    Raises:
        UserError: when there is no harvest to count.
    """
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
    if not getattr(SEGMENTERS.get(name), "TRAINABLE", False):
        return
    from ahp_toolkit.nets import checkpoints

    held = held_of(checkpoints.load_checkpoint(Path(weights), SEGMENTERS.get(name).KIND).meta.get("held_out"))
    if held is None:
        raise UserError(f"{weights}: it does not say which photos it was not trained on; train it again")
    if not held.holds(cut.start, cut.test):
        raise UserError(
            f"{weights}: it was trained on people of val or test: their photos' hashes are in "
            f"[{cut.start:g}, {cut.test:g}), it was kept from {held}; train it with this build's sizes or fold, or ask "
            "for fewer --val-humans and --test-humans"
        )
