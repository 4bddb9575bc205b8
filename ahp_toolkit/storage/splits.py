"""The identity of a split, which runs, predictions and scores name: one rule for trainers and judges."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import parquet

#: The columns of `records.Sample` that a method is given, or that its figures depend on.
COLUMNS = ("sample_id", "human_id", "digest", "given", "crop", "amodal", "modal", "occlusion_ratio", "bin")


def sample_pairs(folder: Path) -> list[tuple[str, str]]:
    """(sample_id, digest) of every sample of a split, without decoding its masks.

    The digest covers everything that a method is given and judged by: the pixels (`records.Sample.digest`), the true
    masks themselves, the initial mask and its maker, the crop, the human, and the occlusion ratio.

    Raises:
        UserError: when there is no table, or one of other records, or it is damaged.
    """
    pairs: list[tuple[str, str]] = []
    for path in parquet.parts(folder):
        table = parquet.read_table(path, COLUMNS)
        if table.num_columns < len(COLUMNS):
            near = f", such as {folder.parent}" if folder.resolve().parent.parent.name == "splits" else ""
            raise UserError(
                f"{folder}: expected the samples of a split, found a table of other records ({path.name}); give "
                f"ROOT/splits/NAME itself{near}"
            )
        for batch in table.to_batches(max_chunksize=1024):  # rows as objects take many times their bytes
            rows = batch.to_pylist()
            pairs += [(r["sample_id"], hashing.digest_value([r[name] for name in COLUMNS])) for r in rows]
    return pairs


def split_digest(samples: Iterable[tuple[str, str]]) -> str:
    """The identity of a split: sha256 over its `sample_pairs`, sorted."""
    return hashing.digest_value(sorted(map(list, samples)))
