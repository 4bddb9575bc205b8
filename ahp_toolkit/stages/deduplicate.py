"""One photograph in two sources: found by keys and by content, kept once, the better annotation winning (formats §7).

Keys (Flickr photo id, COCO id, VOC id) are exact. Content is a 64-bit pHash with Hamming distance <= 4, verified by
the mean difference of 16x16 thumbnails. Two files of one photograph within one source are both kept, but share one
photo key, so that they never fall into two splits; so do photos of one scene or burst, whose pHash and thumbnails
are alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Candidate, Dropped, ImageRef, Occluder
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, finished
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import PERSON, Entry
from ahp_toolkit.stages.harvest import STAGE, Harvest, Photo, Rules, entries_of, refuse_unusable, remarks
from ahp_toolkit.stages.near import Int, like_pairs, near_pairs, roots, scene_pairs, union
from ahp_toolkit.storage import files, locations, parquet
from ahp_toolkit.storage.parquet import schema_of

#: Least correlation of the thumbnails of two photos of one scene. With 12 bits it finds 7 pairs, all right, in 1,003
#: street photographs of CCP, where some 57 pairs show one person again, and none in three sets without any.
SCENE_CORRELATION = 0.8
#: Bits by which two photographs differ at least (32 on average); copies of one, of any size and quality, by few.
OTHER_HAMMING = 20
#: Least cosine of two embeddings of one scene.
SCENE_COSINE = 0.95
THUMB_DIFFERENCE = 8.0  # mean absolute grey level; two JPEG qualities of one photo differ by 1 to 3
_PAIRS = 100_000  # thumbnails compared at a time
_TYPES = {field.name: field.type for field in schema_of(Photo)}


@dataclass(frozen=True)
class Duplicates:
    """``group``: image id -> photo key shared by all files of one photograph, where it is not the image's own id;
    ``lost``: image id -> the id kept in its place."""

    group: dict[str, str]
    lost: dict[str, str]

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        files.write_json(path, {"group": self.group, "lost": self.lost})


@lru_cache(maxsize=1)
def _load(path: str, _size: int, _mtime_ns: int, _inode: int) -> Duplicates:
    # known by the file, not by its name alone: a later harvest in this process may write there again
    record = files.read_json(Path(path))
    return Duplicates(record["group"], record["lost"])


def find_duplicates(
    photos: Path, formats: Mapping[str, str], vectors: Mapping[str, NDArray[np.float32]] | None = None
) -> Duplicates:
    """Group the photos of a harvest (table of `harvest.Photo`) and choose the one to keep of each group.

    Photos of one scene or burst are different photographs, all kept; they share one photo key, so one split.

    Memory: some 150 bytes a photo; names are read of photos that have a double only.

    Args:
        formats: the format of each source, whose facts ``RANK`` and ``IS_CROP`` help to choose.
        vectors: image id -> an embedding float32 [D] by any network, which finds more photos of one scene.
    """
    paths = parquet.parts(photos)
    parent = _joined_by_keys(paths, formats)
    index, values = _hashes(paths)
    same = _same_pixels(paths, index, values, parent)
    if same.any():  # what is one picture to the last bit needs no comparing
        index, values = index[~same], values[~same]
    a, b = (index[side] for side in near_pairs(values))
    alike = _alike(paths, a, b)
    union(parent, a[alike], b[alike])
    scene = parent.copy()
    a, b = (index[side] for side in scene_pairs(values))
    alike = _alike(paths, a, b, scene=True)
    union(scene, a[alike], b[alike])
    if vectors:
        union(scene, *_by_vectors(paths, vectors))
    return _one_key(paths, _choose(paths, roots(parent), formats), roots(scene))


def _by_vectors(paths: Sequence[Path], vectors: Mapping[str, NDArray[np.float32]]) -> tuple[Int, Int]:
    ids = _column(paths, "image_id").to_pylist()
    known = np.array([i for i, image_id in enumerate(ids) if image_id in vectors], np.int64)
    if not known.size:
        return known, known
    a, b = like_pairs(np.stack([np.asarray(vectors[ids[i]], np.float32) for i in known]), SCENE_COSINE)
    return known[a], known[b]


def _one_key(paths: Sequence[Path], found: Duplicates, root: Int) -> Duplicates:
    """The same with one photo key for all photos of a scene: the least of their keys."""
    sizes = np.bincount(root, minlength=root.size)
    several = np.flatnonzero(sizes[root] > 1)
    rows = _rows(paths, several)
    keys: dict[int, str] = {}
    for i in several.tolist():
        own = str(rows[i]["image_id"])
        key = found.group.get(own, own)
        keys[int(root[i])] = min(key, keys.get(int(root[i]), key))
    group = dict(found.group)
    for i in several.tolist():
        own, key = str(rows[i]["image_id"]), keys[int(root[i])]
        group[own] = key
        if own == key:
            del group[own]
    return Duplicates(group, found.lost)


def _column(paths: Sequence[Path], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([c for p in paths for c in parquet.read_table(p, [name])[name].chunks], _TYPES[name])


def _joined_by_keys(paths: Sequence[Path], formats: Mapping[str, str]) -> Int:
    """Each photo's parent after joining those that share a key: int64 [N].

    Own photos may have names of COCO's form: two whole photos of one key whose hashes contradict it are not joined.
    """
    lists = pc.utf8_split_whitespace(_column(paths, "keys")).combine_chunks()
    parent = np.arange(len(lists), dtype=np.int64)
    keys = pc.list_flatten(lists)
    real = pc.not_equal(keys, "")  # a text without words splits into one empty word
    owner = pc.list_parent_indices(lists).filter(real).to_numpy()
    code = keys.filter(real).dictionary_encode().indices.to_numpy()
    order = np.argsort(code, kind="stable")
    again = np.flatnonzero(code[order][1:] == code[order][:-1])
    first = order[np.searchsorted(code[order], code[order[again + 1]])]  # of each key
    a = np.concatenate([owner[order[again]], owner[first]]).astype(np.int64)
    b = np.tile(owner[order[again + 1]], 2).astype(np.int64)
    agree = ~_contradict(paths, formats, a, b)
    union(parent, a[agree], b[agree])
    return parent


def _contradict(paths: Sequence[Path], formats: Mapping[str, str], a: Int, b: Int) -> NDArray[np.bool_]:
    """Which pairs are whole photos whose hashes differ as those of two photographs do."""
    index, hashes = _hashes(paths)
    sources = _column(paths, "source").combine_chunks().dictionary_encode()
    names = sources.dictionary.to_pylist()
    whole = np.array([not getattr(SOURCES.get(formats.get(n, n)), "IS_CROP", False) for n in names], np.bool_)
    value, known = np.zeros(len(sources), np.uint64), np.zeros(len(sources), np.bool_)
    value[index], known[index] = hashes, True
    usable = known & (whole[sources.indices.to_numpy()] if len(names) else known)
    bits = np.unpackbits((value[a] ^ value[b])[:, None].view(np.uint8), axis=1).sum(1)
    return usable[a] & usable[b] & (bits > OTHER_HAMMING)


def _hashes(paths: Sequence[Path]) -> tuple[Int, NDArray[np.uint64]]:
    """(index, hash) of the photos that have one."""
    found = _column(paths, "phash")
    known = pc.equal(pc.binary_length(found), 8).to_numpy()
    data = b"".join(c.as_py() for c in found.filter(pa.array(known)))
    return np.flatnonzero(known), np.frombuffer(data, ">u8").astype(np.uint64)


def _same_pixels(paths: Sequence[Path], index: Int, values: NDArray[np.uint64], parent: Int) -> NDArray[np.bool_]:
    """Join photos of one hash and one thumbnail; True for all but the first of each such group."""
    order = np.argsort(values, kind="stable")
    met = values[order][1:] == values[order][:-1]
    several = np.zeros(values.size, np.bool_)
    several[order[1:][met]] = several[order[:-1][met]] = True
    wanted = np.flatnonzero(several)
    same = np.zeros(values.size, np.bool_)
    if wanted.size:
        both = np.hstack([values[wanted, None].view(np.uint8), _thumbs(paths, index[wanted])])
        _, first, group = np.unique(both.view("V264").ravel(), return_index=True, return_inverse=True)
        union(parent, index[wanted[first[group]]], index[wanted])
        same[wanted] = True
        same[wanted[first]] = False
    return same


def _thumbs(paths: Sequence[Path], wanted: Int) -> NDArray[np.uint8]:
    """The thumbnails of photos, given by rising index: uint8 [n, 256]."""
    out = np.zeros((wanted.size, 256), np.uint8)
    start = 0
    for path in paths:
        column = parquet.read_table(path, ["thumb"])["thumb"]
        low, high = np.searchsorted(wanted, (start, start + len(column)))
        some = column.take(pa.array(wanted[low:high] - start))
        for k, thumb in enumerate(some, int(low)):
            out[k] = np.frombuffer(thumb.as_py(), np.uint8)
        start += len(column)
    return out


def _alike(paths: Sequence[Path], a: Int, b: Int, scene: bool = False) -> NDArray[np.bool_]:
    """Which pairs have thumbnails of one photograph, or of one scene."""
    wanted = np.unique(np.concatenate([a, b]))
    if not wanted.size:
        return np.zeros(0, np.bool_)
    thumbs = _thumbs(paths, wanted)
    out = np.zeros(a.size, np.bool_)
    for k in range(0, a.size, _PAIRS):
        x, y = (thumbs[np.searchsorted(wanted, side[k : k + _PAIRS])].astype(np.int32) for side in (a, b))
        if scene:
            x, y = (side - side.mean(1, keepdims=True) for side in (x, y))
            norm = np.sqrt((x * x).sum(1) * (y * y).sum(1))
            out[k : k + _PAIRS] = (x * y).sum(1) >= SCENE_CORRELATION * np.maximum(norm, 1e-9)
        else:
            out[k : k + _PAIRS] = np.abs(x - y).sum(1) <= THUMB_DIFFERENCE * 256
    return out


def _choose(paths: Sequence[Path], root: Int, formats: Mapping[str, str]) -> Duplicates:
    """The best photo of each group of several, and what it replaces."""
    sizes = np.bincount(root, minlength=root.size)
    rows = _rows(paths, np.flatnonzero(sizes[root] > 1))
    members: dict[int, list[int]] = {}
    for i in rows:
        members.setdefault(int(root[i]), []).append(i)
    group: dict[str, str] = {}
    lost: dict[str, str] = {}
    for ids in members.values():
        best = min(ids, key=lambda i: _preference(rows[i], formats))
        for i in ids:
            image_id = str(rows[i]["image_id"])
            if i != best:
                group[image_id] = str(rows[best]["image_id"])
            if rows[i]["source"] != rows[best]["source"]:
                lost[image_id] = str(rows[best]["image_id"])
    return Duplicates(group, lost)


def _rows(paths: Sequence[Path], wanted: Int) -> dict[int, dict[str, object]]:
    """index -> who a photo is and how well it is annotated, for photos given by rising index."""
    out: dict[int, dict[str, object]] = {}
    start = 0
    for path in paths:
        table = parquet.read_table(path, ["image_id", "source", "people", "masks"])
        low, high = np.searchsorted(wanted, (start, start + len(table)))
        found = table.take(pa.array(wanted[low:high] - start)).to_pylist()
        out |= dict(zip(wanted[low:high].tolist(), found, strict=True))
        start += len(table)
    return out


def _preference(row: dict[str, object], formats: Mapping[str, str]) -> tuple[bool, bool, int, str]:
    """The photo that sorts first is kept: whole, then with a mask for all its people, then by its format's rank."""
    people, masks, source = int(str(row["people"])), int(str(row["masks"])), str(row["source"])
    all_masked = people > 0 and masks == people
    facts = SOURCES.get(formats.get(source, source))
    rank = getattr(facts, "RANK", sys.maxsize)
    return (getattr(facts, "IS_CROP", False), not all_masked, rank, str(row["image_id"]))


@dataclass(frozen=True)
class Deduplicate:
    """The stage function that ends the harvest: duplicates leave, photo keys become the group's. Items: raw part names.

    ``raw`` is the raw harvest's folder, ``found`` the file of `Duplicates.save` (not the object: it goes to every
    worker with every shard). Candidates that leave are kept aside in the table ``duplicates``: LIP's crops of COCO
    photos still train the parser. Occluders that leave are of a photo that another source stands for, and are counted.
    """

    raw: str
    found: str

    def __call__(self, items: Sequence[str]) -> Output:
        """One part of the raw harvest."""
        out = Output({MAIN: [], "occluders": [], "duplicates": []})
        seen = Path(self.found).stat()
        found = _load(self.found, seen.st_size, seen.st_mtime_ns, seen.st_ino)
        for name in items:
            for c in parquet.read_records(Path(self.raw) / name, Candidate):
                _candidate(c, found, out)
            for o in parquet.read_records(Path(self.raw) / "occluders" / name, Occluder):
                if o.image.image_id in found.lost:
                    out.counts[f"occluders_duplicate/{o.image.source}"] += 1
                    continue
                out.tables["occluders"].append(replace(o, image=_grouped(o.image, found)))
                kind = "person" if o.label == PERSON else "other"
                out.counts[f"occluders_{kind}/{o.image.source}"] += 1
        return out


def _grouped(image: ImageRef, found: Duplicates) -> ImageRef:
    return replace(image, photo=found.group.get(image.image_id, image.image_id))


def _candidate(c: Candidate, found: Duplicates, out: Output) -> None:
    c = replace(c, image=_grouped(c.image, found))
    kept = found.lost.get(c.image.image_id)
    if kept is None:
        out.tables[MAIN].append(c)
        out.counts[f"candidates/{c.image.source}"] += 1
        return
    out.tables["duplicates"].append(c)
    detail = f"the same photo as {kept}, which is whole or annotated better"
    out.dropped.append(Dropped(c.candidate_id, STAGE, "duplicate_photo", detail, c.image.source))


def stages(folder: Path, roots: Mapping[str, str], formats: Mapping[str, str], rules: Rules) -> tuple[Stage, Stage]:
    """The harvest in two steps: read all photos of all sources; keep each photograph once.

    The tables of the first step lie in the unfinished folder of the second.

    Args:
        roots: data root by source.
        formats: format by source.
    """
    readers = {name: SOURCES.get(kind) for name, kind in formats.items()}
    inputs = {name: hashing.stamp(reader.inputs(locations.place(roots[name]))) for name, reader in readers.items()}
    code = code_digest("ahp_toolkit.stages.harvest", __name__, *map(SOURCES.module, formats.values()))
    key = {"rules": asdict(rules), "inputs": inputs, "formats": dict(formats), "code": code}
    tables = {MAIN: Candidate, "occluders": Occluder}
    unfinished = Job(STAGE, folder, Deduplicate("", ""), tables, key).partial
    raw, found = unfinished / "raw", unfinished / "duplicates.json"
    whole = {MAIN: Candidate, "occluders": Occluder, "duplicates": Candidate}
    deduplicate = Job(STAGE, folder, Deduplicate(str(raw), str(found)), whole, key, shard_size=1, unit="part")
    fn = Harvest(dict(roots), rules, formats)
    read = Job(STAGE, raw, fn, tables | {"photos": Photo}, key, growing=True, unit="photo")

    people = frozenset(n.strip().lower() for n in rules.person_names)

    def entries() -> Iterator[tuple[str, Entry]]:
        for name, reader in readers.items():
            for entry in entries_of(reader, locations.place(roots[name]), name, people):  # type: ignore[arg-type]
                yield name, entry

    def parts() -> list[str]:
        made = finished(raw)
        counts = made.counts if made is not None else {}
        try:
            refuse_unusable(raw, counts, roots)
        except UserError:
            files.remove_tree(raw)  # other photos may be there the next time
            raise
        sys.stderr.writelines(f"{line}\n" for line in remarks(counts))
        find_duplicates(raw / "photos", formats).save(found)
        return [p.name for p in parquet.parts(raw)]

    totals: list[Any] = [getattr(reader, "total", None) for reader in readers.values()]
    known = all(totals)
    size = sum(n(locations.place(roots[name])) for n, name in zip(totals, readers, strict=True)) if known else None
    return Stage(read, entries, size), Stage(deduplicate, parts, inner=raw)
