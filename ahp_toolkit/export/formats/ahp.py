"""The authors' AHP layout (spec §8): ``AHP/<split>/`` with pictures, masks, parsings and the list of stems.

Humans: JPEGImages, Annotations (0 and 255), PseudoParsingAnnotations, ImageSets/<split>.txt. Samples (the authors' val
and test folders were not seen): OccludedImages, AmodalMasks, ModalMasks, InvisibleMasks, RecoveredImages, and the list.
"""

from __future__ import annotations

from pathlib import Path

from ahp_toolkit.core.text import file_stem
from ahp_toolkit.export.formats.base import HUMANS, Item, Job, grey

PICTURES = True


def write(job: Job) -> list[Path]:
    """One split; returns its list of stems."""
    folder = job.out / "AHP" / job.split
    one = _human if job.what == HUMANS else _sample
    stems = [file_stem(item.item_id) for item in job.items() if one(job, folder, item)]
    job.counts["written"] = len(stems)
    name = job.split if job.what == HUMANS else f"{job.split}_samples"
    made = [job.file(folder / "ImageSets" / f"{name}.txt", "".join(f"{s}\n" for s in stems).encode())]
    if job.build.provisional:
        note = b"PROVISIONAL: decisions behind these files were made by rule, not by a person.\n"
        made.append(job.file(folder / "PROVISIONAL.txt", note))
    return made


def _human(job: Job, folder: Path, item: Item) -> bool:
    data = job.jpeg(item)
    if data is None:
        return False
    stem = file_stem(item.item_id)
    job.file(folder / "JPEGImages" / f"{stem}.jpg", data)
    job.png(folder / "Annotations" / f"{stem}.png", grey(item.amodal.decode()))
    if item.parsing is not None:
        job.png(folder / "PseudoParsingAnnotations" / f"{stem}.png", item.parsing.decode())
    return True


def _sample(job: Job, folder: Path, item: Item) -> bool:
    made = job.pasted(item)
    if made is None:
        return False
    name = f"{file_stem(item.item_id)}.png"
    job.png(folder / "OccludedImages" / name, made.image)
    job.png(folder / "RecoveredImages" / name, made.recovered)
    job.png(folder / "AmodalMasks" / name, grey(made.amodal))
    job.png(folder / "ModalMasks" / name, grey(made.modal))
    job.png(folder / "InvisibleMasks" / name, grey(made.amodal & ~made.modal))
    return True
