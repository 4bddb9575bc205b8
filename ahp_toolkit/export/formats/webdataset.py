"""WebDataset: ``<split>-<number>.tar`` shards of pictures, masks and JSON; the same records give the same bytes.

Samples: occluded.png, recovered.png, amodal.png, modal.png, given.png, json. Humans: jpg, amodal.png, parsing.png
(where there is one), json.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ahp_toolkit.core.text import file_stem
from ahp_toolkit.export.formats.base import Item, Job, grey
from ahp_toolkit.storage import images

PICTURES = True

SHARD = 1000


def write(job: Job) -> list[Path]:
    """All shards of one split (none where nothing could be written)."""
    members = _members(job)
    made: list[Path] = []
    while True:
        first = next(members, None)
        if first is None:
            return made
        path = job.out / f"{job.split}-{len(made):06d}.tar"
        # GNU: ustar ends at names of 100 bytes, and a composite's name has both its human's and its occluder's ids
        with job.open(path) as f, tarfile.open(fileobj=f, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for key, files in chain([first], islice(members, SHARD - 1)):
                _add(tar, key, files)
        made.append(path)


def _members(job: Job) -> Iterator[tuple[str, dict[str, bytes]]]:
    for item in job.items():
        files = _human(job, item) if item.sample is None else _sample(job, item)
        if files is not None:
            job.counts["written"] += 1
            yield file_stem(item.item_id), files | {"json": _json(item)}


def _human(job: Job, item: Item) -> dict[str, bytes] | None:
    data = job.jpeg(item)
    if data is None:
        return None
    files = {"jpg": data, "amodal.png": images.encode(grey(item.amodal.decode()), ".png")}
    return files if item.parsing is None else files | {"parsing.png": images.encode(item.parsing.decode(), ".png")}


def _sample(job: Job, item: Item) -> dict[str, bytes] | None:
    made = job.pasted(item)
    if made is None:
        return None
    assert item.sample is not None
    pictures = {"occluded": made.image, "recovered": made.recovered}
    masks = {"amodal": made.amodal, "modal": made.modal, "given": item.sample.given.mask.decode()}
    pixels = pictures | {k: grey(m) for k, m in masks.items()}
    return {f"{k}.png": images.encode(v, ".png") for k, v in pixels.items()}


def _json(item: Item) -> bytes:
    record: dict[str, Any] = {
        "id": item.item_id, "human_id": item.human_id, "provisional": item.provisional, "source": item.image.source,
        "source_path": item.image.path, "licence": item.image.licence, "occlusion_ratio": item.occlude_rate,
    }  # fmt: skip
    if item.sample is not None:
        s = item.sample
        record |= {"split": s.split, "kind": s.kind, "bin": s.bin, "crop": list(s.crop), "seed": s.seed}
        record |= {"digest": s.digest, "given_maker": s.given.maker}
    return json.dumps(record, sort_keys=True, ensure_ascii=False).encode()


def _add(tar: tarfile.TarFile, key: str, files: dict[str, bytes]) -> None:
    for extension, data in files.items():
        entry = tarfile.TarInfo(f"{key}.{extension}")  # time, owner and rights are fixed: 0, 0, 0644
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
