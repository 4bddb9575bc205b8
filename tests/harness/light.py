"""The light wheel in an empty environment: ``make light``. Prints its size and times, and scores a submission.

    python -m tests.harness.light dist/ahp_toolkit-*.whl

Status 1 where a heavy package came along, the environment holds 1 GB or more, or a command failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "fiftyone", "transformers", "ray", "lightning")
EXAMPLE = """
import sys
from pathlib import Path
from tests.benchmark.world import make_split, noisy, submit
split, folder = Path(sys.argv[1]), Path(sys.argv[2])
submit(folder, noisy(make_split(split), 1, 0))
"""


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def timed(name: str, *command: object, **env: str) -> None:
    """Run a command and print its wall time; ends this program where it fails."""
    start = time.monotonic()
    out = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=os.environ | env, check=False)
    print(f"{name:<28}{time.monotonic() - start:6.1f} s")
    if out.returncode:
        sys.exit(f"{name} ended with {out.returncode}: {out.stderr[-2000:]}")


def main() -> None:
    """Install, measure, score."""
    (wheel,) = sys.argv[1:]
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        venv.create(folder / "venv", with_pip=True)
        before = size(folder / "venv")
        python, ahp = folder / "venv/bin/python", folder / "venv/bin/ahp"
        timed("pip install", python, "-m", "pip", "install", "-q", "--no-cache-dir", Path(wheel).resolve())
        held = size(folder / "venv") - before
        print(f"{'installed':<28}{held / 1e6:6.0f} MB")
        site = next((folder / "venv/lib").glob("*/site-packages"))
        heavy = [name for name in HEAVY if (site / name).exists()]
        split, mine, boards = folder / "split", folder / "mine", folder / "boards"
        timed("example", python, "-c", EXAMPLE, split, mine, PYTHONPATH=str(ROOT))
        timed("ahp --help", ahp, "--help")
        timed("ahp bench validate", ahp, "bench", "validate", mine, "--split", split)
        timed("ahp bench score", ahp, "bench", "score", mine, "--split", split, "--out", boards)
        timed("ahp bench report", ahp, "bench", "report", "--boards", boards)
        if heavy or held >= 1e9:
            sys.exit(f"expected a light install, found {', '.join(heavy) or f'{held / 1e9:.2f} GB'}")


if __name__ == "__main__":
    main()
