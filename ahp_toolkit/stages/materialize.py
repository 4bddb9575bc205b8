"""STAGE materialize: the pixels of a split's samples as files (design: Records).

``full``: whole photos: NAME/{occluded,recovered}.png and {amodal,modal,invisible,given}.png masks (0 and 255).
``crops``: the protocol's 256x256 crops: NAME.{occluded,recovered,given,amodal,modal}.png.
NAME is the sample id, '/' and '#' as '_'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE, crop_image, crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.occlusion.paste import Pasted
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Result, Stage, digest_of
from ahp_toolkit.storage import files, images, missing, parquet
from ahp_toolkit.storage.lock import lock

STAGE = "materialize"
CROPS = ("occluded", "recovered", "given", "amodal", "modal")
FULL = (*CROPS, "invisible")
#: Folders beside a split's tables: the crops, and the record of what was written.
BESIDE = ("crops", ".crops.written")


@dataclass(frozen=True, slots=True)
class WrittenSample:
    """What was written of one sample, relative to the folder: its name and digests.

    ``digest``: the sample's own; ``files``: sha256 over its files; ``recovered``: sha256 of the recovered crop's
    pixels, which content is scored on ('' for whole photos).
    """

    sample_id: str
    name: str
    digest: str
    files: str
    recovered: str = ""


@dataclass(frozen=True)
class Materialize:
    """The stage function. Items: names of the split's parts; ``what`` is full or crops."""

    split: str
    to: str
    what: str
    roots: dict[str, str]

    def __call__(self, items: Sequence[str]) -> Output:
        """One part of the split."""
        out = Output({MAIN: []})
        to, write = Path(self.to), _write_full if self.what == "full" else _write_crops
        for part in items:
            render = Renderer(self.roots, Path(self.split), part)
            for sample in parquet.read_records(Path(self.split) / part, Sample):
                try:
                    pasted = render(sample)
                except images.ImageError as e:
                    reason, source = f"image_{e.reason}", sample.image.source
                    out.dropped.append(Dropped(sample.sample_id, STAGE, reason, str(e), source))
                    continue
                recovered, name = write(to, sample, pasted), file_stem(sample.sample_id)
                digest = files_digest(to, name, self.what)
                out.tables[MAIN].append(WrittenSample(sample.sample_id, name, sample.digest, digest, recovered))
                out.counts["written"] += 1
        return out


def write_digests(to: Path, written: Iterable[WrittenSample]) -> None:
    """Write ``digests.json`` of a split's crops: file name to sha256 of the pixels that content is scored on."""
    files.write_json(to / "digests.json", {f"{w.name}.recovered.png": w.recovered for w in written})


def _files(to: Path, name: str, what: str) -> list[Path]:
    names = [f"{name}.{n}" for n in CROPS] if what == "crops" else [f"{name}/{n}" for n in FULL]
    return [to / f"{n}.png" for n in names]


def forget(to: Path, name: str, what: str) -> None:
    """Remove the files of one sample, and its folder where nothing else lies in it."""
    for path in _files(to, name, what):
        path.unlink(missing_ok=True)
    if what == "full":
        with suppress(OSError):  # not there, or somebody's files are
            (to / name).rmdir()


def files_digest(to: Path, name: str, what: str) -> str:
    """sha256 over the files of one sample; '' where one is missing."""
    paths = _files(to, name, what)
    return hashing.digest_files(paths) if all(p.is_file() for p in paths) else ""


def _write_full(to: Path, sample: Sample, pasted: Pasted) -> str:
    folder = to / file_stem(sample.sample_id)
    images.write_png(folder / "occluded.png", pasted.image)
    images.write_png(folder / "recovered.png", pasted.recovered)
    masks = {"amodal": pasted.amodal, "modal": pasted.modal, "invisible": pasted.amodal & ~pasted.modal}
    for name, mask in (masks | {"given": sample.given.mask.decode()}).items():
        images.write_png(folder / f"{name}.png", np.where(mask, np.uint8(255), np.uint8(0)))
    return ""


def _write_crops(to: Path, sample: Sample, pasted: Pasted) -> str:
    recovered = ""
    for name, pixels in (("occluded", pasted.image), ("recovered", pasted.recovered)):
        crop = crop_image(pixels, sample.crop, SIDE)
        images.write_png(to / f"{file_stem(sample.sample_id)}.{name}.png", crop)
        recovered = hashing.digest_bytes(crop.tobytes())  # the last of the two
    for name, mask in (("given", sample.given.mask), ("amodal", sample.amodal), ("modal", sample.modal)):
        grey = np.where(crop_mask(mask, sample.crop, SIDE), np.uint8(255), np.uint8(0))
        images.write_png(to / f"{file_stem(sample.sample_id)}.{name}.png", grey)
    return recovered


def _written(marks: Path, to: Path, what: str) -> bool:
    """Whether every picture that was written is still what was written."""
    return all(files_digest(to, w.name, what) == w.files for w in parquet.read_records(marks, WrittenSample))


def _wanted(split: Path) -> set[str]:
    """The file names of a split's samples."""
    return {
        file_stem(i)
        for p in parquet.parts(split)
        for i in parquet.read_table(p, ["sample_id"])["sample_id"].to_pylist()
    }


def _written_names(marks: Path) -> set[str]:
    """The file names of the samples whose pictures were written."""
    return {w.name for w in parquet.read_records(marks, WrittenSample)}


def _forget_all(names: Iterable[str], to: Path, what: str) -> None:
    """Remove the pictures of samples by their file names, and nothing else."""
    for name in names:
        if name == file_stem(name):  # a name of ours: no path
            forget(to, name, what)


def pictures_of(root: Path, out: Path, name: str, what: str) -> Path:
    """Where `materialize` writes a split's pictures: ``out``/SPLIT, or for crops beside the split's tables."""
    return out / name if what == "full" else root / "splits" / name / "crops"


def materialize(
    root: Path, roots: dict[str, str], out: Path, splits: Sequence[str], what: str, engine: Engine
) -> list[Result]:
    """Write the pixels of splits: whole photos, or crops; see `pictures_of`."""
    results = []
    for name in splits:
        folder = root / "splits" / name
        to = pictures_of(root, out, name, what)
        fn = Materialize(str(folder), str(to), what, roots)
        key = {
            "what": what,
            "input": digest_of(folder),
            "to": to.name,
            "code": code_digest(__name__),
        }
        marks = to.parent / f".{to.name}.written"
        job = Job(f"write {name}", marks, fn, {MAIN: WrittenSample}, key, shard_size=1, unit="part")
        job = replace(job, check=missing.mounted(roots, root / "harvest", root / "harvest" / "occluders"))
        items = [p.name for p in parquet.parts(folder)]
        with lock(marks.parent):
            with suppress(UserError):  # no whole table: nothing is known of what was written
                _forget_all(_written_names(marks) - _wanted(folder), to, what)  # the split no longer has them
            result = Stage(job, items).run(engine)
            again = not result.fresh and result.counts["dropped"] > 0  # a photo may be there now
            if again or not _written(marks, to, what):  # or a picture was lost or damaged since
                result = Stage(job, items).run(engine, again=True)
            # dropped now, and not whole since an earlier call
            _forget_all(_wanted(folder) - _written_names(marks), to, what)
            files.forget_unfinished(to, deep=True)  # whole photos lie in a folder a sample
            if what == "crops":
                write_digests(to, parquet.read_records(marks, WrittenSample))
        results.append(result)
    return results
