"""What addresses and archives cost: looking a local photo up as before and now, and reading it from an archive.

CPU seconds (the machine's other work does not count), the best of several rounds, ratios within one run.
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ahp_toolkit.sample_world import write_world
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import images, locations
from tests.build.steps import config, made

PHOTOS, ROUNDS = 200, 7


def best(fn: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU seconds of one call."""
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        fn()
        spent.append(time.process_time() - start)
    return min(spent)


def lookups(root: Path, names: list[str]) -> tuple[float, float]:
    """Seconds a photo: the safe path alone (as before archives and addresses), and `places.find`."""
    before = best(lambda: [disk.safe_join(Path(str(root)), n) for n in names])
    now = best(lambda: [locations.find(locations.place(str(root)), n) for n in names])
    return before / len(names), now / len(names)


def reads(root: Path, names: list[str]) -> tuple[float, float]:
    """Seconds a photo: bytes of a file, bytes of a stored member of a zip of the same files."""
    with zipfile.ZipFile(root / "packed.zip", "w") as z:
        for n in names:
            z.write(root / n, Path(n).name)
    files = best(lambda: [images.read_bytes(locations.find(root, n)) for n in names])
    packed = [f"packed/{Path(n).name}" for n in names]
    locations.find(root, packed[0])
    members = best(lambda: [images.read_bytes(locations.find(root, n)) for n in packed])
    return files / len(names), members / len(names)


def main() -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        write_world(root / "world", scenes=52)
        coco = root / "world" / "coco"
        names = sorted(p.relative_to(coco).as_posix() for p in coco.glob("train2017/*.jpg"))
        names = (names * PHOTOS)[:PHOTOS]
        before, now = lookups(coco, names)
        roots = {n: root / "world" / n for n in ("coco", "lip", "objects365", "openimages", "voc_sbd")}
        start = time.process_time()
        result = made(config(root / "out", roots), "harvest")["harvest"]
        photos = sum(n for k, n in result.counts.items() if k.startswith("images/"))
        photo = (time.process_time() - start) / photos
        file, member = reads(coco, sorted(set(names)))
        print(f"look-up of a local photo: {before * 1e6:.1f} -> {now * 1e6:.1f} us ({now / before:.2f} times)")
        print(f"more per photo of the harvest ({photo * 1e3:.2f} ms each): {2 * (now - before) / photo:.2%}")
        print(f"a photo: {file * 1e6:.0f} us as a file, {member * 1e6:.0f} us in a zip ({member / file:.2f} times)")


if __name__ == "__main__":
    main()
