"""The rows of every table of two small builds, pinned: a change of code that changes a table shows here.

``python -m tests.build.test_digests`` builds both and writes ``digests.json`` again, for a commit that says why. The
digests are over rows, not files, so that another version of pyarrow gives the same. COCO128 is looked for where
``AHP_COCO128`` says, else in ``../shared/data/coco128``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ahp_toolkit.cli.main import ahp
from ahp_toolkit.core import hashing
from ahp_toolkit.sample_world import write_world

PINNED = Path(__file__).with_name("digests.json")
COCO128 = Path(os.environ.get("AHP_COCO128", Path(__file__).parents[2].parent / "shared" / "data" / "coco128"))
SOURCES = ("coco", "voc_sbd", "lip", "objects365", "openimages")


def digests(roots: dict[str, Path], out: Path, review: str) -> dict[str, str]:
    """Build once, and give the digest of each table's rows by its folder; ``/dropped`` for its rejects."""
    sources = [x for name, root in roots.items() for x in ("--source", f"{name}={root}")]
    command = ["build", *sources, "--out", out, "--review", review, "--workers", "1", "-q"]
    result = CliRunner().invoke(ahp, [str(x) for x in command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    parts: dict[str, list[Path]] = {}
    for path in sorted(out.rglob("*.parquet")):
        place = path.relative_to(out)
        if place.parts[0] != "report":
            end = "/dropped" if place.stem == "dropped" else ""
            parts.setdefault(f"{place.parent.as_posix()}{end}", []).append(path)
    rows = {k: pa.concat_tables([pq.read_table(p) for p in v]).to_pylist() for k, v in parts.items()}
    return {k: f"{len(v)} rows {hashing.digest_value(v)[:16]}" for k, v in sorted(rows.items())}


def sample_world(folder: Path) -> dict[str, str]:
    """Twelve drawn scenes in all five formats, decided by their truth."""
    world = folder / "world"
    write_world(world, seed=0, scenes=12)
    return digests({name: world / name for name in SOURCES}, folder / "out", "oracle")


def coco128(folder: Path) -> dict[str, str]:
    """128 photographs, decided by the provisional rule."""
    return digests({"coco": COCO128}, folder / "out", "provisional")


def test_the_tables_of_the_sample_world_are_the_pinned_ones(tmp_path: Path) -> None:
    assert sample_world(tmp_path) == json.loads(PINNED.read_text())["sample world"]


@pytest.mark.skipif(not COCO128.is_dir(), reason="COCO128 is not at hand")
def test_the_tables_of_coco128_are_the_pinned_ones(tmp_path: Path) -> None:
    assert coco128(tmp_path) == json.loads(PINNED.read_text())["coco128"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        made = {"sample world": sample_world(Path(a)), "coco128": coco128(Path(b))}
    PINNED.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
