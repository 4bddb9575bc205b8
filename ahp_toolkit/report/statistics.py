"""The build in figures: funnel, Table 1, figure 5, occlusion densities, sizes, parsing and tools, as data frames.

Every table has a column ``status``: ``provisional`` as soon as one decision behind it was made by rule.
"""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import SPLITS, Human
from ahp_toolkit.core.text import to_cell
from ahp_toolkit.occlusion import densities
from ahp_toolkit.sources.base import was_human
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.build_folder import STAGES, Build, columns_of, source_of

#: Table 1 of the paper (spec §1): group, the formats of its sources, human count, preserved.
PAPER_TABLE_1: tuple[tuple[str, tuple[str, ...], int, int], ...] = (
    ("COCO + VOC + LIP", ("coco", "voc_sbd", "lip"), 24_806, 5_940),
    ("OpenImages", ("openimages",), 314_359, 17_677),
    ("Objects365", ("objects365",), 669_166, 32_982),
)
#: Figure 5 shows scene categories of more than this many humans in the paper.
PAPER_SCENE_MIN = 1000
#: Parsing is decoded for at most this many humans, chosen by hash: the mean moves by less than 1 %.
PARSING_SAMPLE = 2000
Tables = dict[str, pd.DataFrame]


def tables(build: Build) -> Tables:
    """Every table of the report by name; tables of stages that have not run are empty frames with their columns."""
    humans = people(build)
    preserved = humans[humans["verdict"] == "preserve"]
    made = {
        "funnel": funnel(build),
        "table_1": table_1(build, humans),
        "drops": drops(build),
        "splits": splits(build, humans),
        "aspect_ratio": aspect_ratio(preserved),
        "scenes": scenes(preserved),
        "occlusion": occlusion(build),
        "size": size(humans),
        "parsing": parsing(build, preserved),
        "tools": tools(build),
        "closing": closing(build),
        "groups": groups(build),
        "occluders": occluders(build),
    }
    status = "provisional" if build.provisional else "reviewed" if len(humans) else "not reviewed"
    return {name: frame.assign(status=status) for name, frame in made.items()}


_OF_HUMANS = ("human_id", "image.source", "image.image_id", "box", "mask.height", "mask.width", "mask.counts",
              "parsing.height", "scene", "split", "verdict", "provisional")  # fmt: skip


def people(build: Build) -> pd.DataFrame:
    """One row a human with what the tables need: some 40 bytes, whatever the size of masks and parsings."""
    tables = ["review"] if build.has("review") else [f"splits/{s}/humans" for s in SPLITS]
    found = [_people_of(part) for t in tables if build.has(t) for part in parquet.parts(build.root / t)]
    frame = pd.concat([_people_of(None), *found], ignore_index=True)
    return frame.astype(dict.fromkeys(("source", "scene", "split", "verdict"), "category"))


def _people_of(part: Path | None) -> pd.DataFrame:
    """The rows of one part; of none: no rows, the columns."""
    table = columns_of(part, _OF_HUMANS) if part else pa.table({n: pa.array([], pa.null()) for n in _OF_HUMANS})
    read = {name: table[name].to_pylist() for name in _OF_HUMANS}
    masks = zip(read["mask.height"], read["mask.width"], read["mask.counts"], strict=True)
    boxes = np.array(read["box"], np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    ratio = np.divide(sides[:, 1], sides[:, 0], where=sides[:, 0] > 0, out=np.full(len(sides), np.nan))
    made = {name: np.array(read[name], object) for name in ("scene", "split", "verdict")}
    made |= {"source": np.array(read["image.source"], object), "provisional": np.array(read["provisional"], np.bool_)}
    made |= {"photo": pd.util.hash_array(np.array(read["image.image_id"], object)), "ratio": ratio}
    made |= {"area": np.array([Mask(*m).area for m in masks], np.int64)}
    made |= {"parsed": np.array([h is not None for h in read["parsing.height"]], np.bool_)}
    return pd.DataFrame(made)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """No cell that a spreadsheet would take for a formula."""
    return frame.map(to_cell)


def write_tables(made: Tables, folder: Path) -> list[Path]:
    """Write each table as CSV and as Parquet; the same tables give the same bytes."""
    written = []
    for name, frame in made.items():
        text = io.StringIO()
        _plain(frame).to_csv(text, index=False, lineterminator="\n", float_format="%.10g")
        with files.atomic(folder / f"{name}.csv", "w") as f:
            f.write(text.getvalue())
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        parquet.write_table(folder / f"{name}.parquet", table)
        written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
    return written


def funnel(build: Build) -> pd.DataFrame:
    """One row a step: how many humans came in, went on and were dropped; ``unaccounted`` must be 0."""
    persons = sum(n for k, n in build.stage_record("harvest").counts.items() if k.startswith("persons/"))
    candidates, segmented = build.count("harvest"), build.count("segment")
    steps = [("harvest", persons, candidates, _human_drops(build))]
    if build.has("segment"):
        steps.append(("segment", candidates, segmented, _total(build, "segment")))
    if build.has("parse"):
        steps.append(("parse", segmented, build.count("parse"), _total(build, "parse")))
    if build.has("review"):
        steps.append(("review", steps[-1][2], build.count("review"), _total(build, "review")))
    rows = [(s, i, o, d, i - o - d) for s, i, o, d in steps if i or o or d]
    return pd.DataFrame(rows, columns=["step", "came_in", "went_on", "dropped", "unaccounted"])


def _total(build: Build, stage: str) -> int:
    return sum(build.drop_counts(stage).values())


def _human_drops(build: Build) -> int:
    """Harvest also drops photos and other labels; only rejects that were humans belong into the funnel."""
    return sum(map(was_human, build.dropped("harvest")))


def table_1(build: Build, humans: pd.DataFrame) -> pd.DataFrame:
    """Table 1: per source, per group of the paper and in all; drop reasons as ``drop:<stage>:<reason>`` columns.

    ``count`` is the humans that harvest kept (the paper's human count), ``preserved`` those a reviewer found not
    occluded with a fine mask, ``ratio`` the one divided by the other.
    """
    formats = build.formats
    rows = {s: _source_row(build, s) for s in _sources(build, humans)}
    for (source, verdict), n in Counter(zip(humans["source"], humans["verdict"], strict=True)).items():
        rows[source]["preserved" if verdict == "preserve" else "refined"] += n
    lines = [{"source": s, "kind": "source", **row} for s, row in rows.items()]
    lines += [
        {
            "source": name,
            "kind": "group",
            **_sum(rows[s] for s in rows if formats.get(s, s) in members),
            **_paper(count, kept),
        }
        for name, members, count, kept in PAPER_TABLE_1
    ]
    paper = _paper(sum(p[2] for p in PAPER_TABLE_1), sum(p[3] for p in PAPER_TABLE_1))
    lines.append({"source": "all", "kind": "all", **_sum(rows.values()), **paper})
    frame = pd.DataFrame(lines)
    first = ["source", "kind", "persons", "count", "preserved", "refined", "ratio"]
    for column in ("persons", "count", "preserved", "refined"):
        frame[column] = frame.get(column, pd.Series(0, frame.index)).fillna(0).astype("int64")
    frame["ratio"] = frame["preserved"] / frame["count"].where(frame["count"] > 0)
    reasons = sorted(c for c in frame.columns if c.startswith("drop:"))
    frame[reasons] = frame[reasons].fillna(0).astype("int64")
    return frame[[*first, "paper_count", "paper_preserved", "paper_ratio", *reasons]]


def _sources(build: Build, humans: pd.DataFrame) -> list[str]:
    read = {
        k.split("/", 1)[1] for k in build.stage_record("harvest").counts if k.startswith(("persons/", "candidates/"))
    }
    counted = set(build.columns("harvest", "image.source")["image.source"].unique().to_pylist())
    return sorted(read | counted | set(humans["source"].unique()) | set(build.roots))


def _source_row(build: Build, source: str) -> Counter[str]:
    counts = build.stage_record("harvest").counts
    row = Counter({"persons": counts.get(f"persons/{source}", 0), "count": counts.get(f"candidates/{source}", 0)})
    if not row["count"]:
        row["count"] = pc.sum(pc.equal(build.columns("harvest", "image.source")["image.source"], source)).as_py() or 0
    for stage in STAGES[:4]:
        for (of, reason), n in build.drop_counts(stage).items():
            if of == source:
                row[f"drop:{stage}:{reason}"] += n
    return row


def _sum(rows: Iterable[Counter[str]]) -> dict[str, int]:
    out: Counter[str] = Counter()
    for row in rows:
        out.update(row)
    return dict(out)


def _paper(count: int, kept: int) -> dict[str, float]:
    return {"paper_count": count, "paper_preserved": kept, "paper_ratio": kept / count}


def drops(build: Build) -> pd.DataFrame:
    """Every reject by stage, source and reason."""
    rows = [(s, of, r, n) for s in STAGES for (of, r), n in sorted(build.drop_counts(s).items())]
    return pd.DataFrame(rows, columns=["stage", "source", "reason", "count"])


def splits(build: Build, humans: pd.DataFrame) -> pd.DataFrame:
    """Preserved humans, those still to refine, samples, photos and provisional records of each split.

    A preserved human beyond the number that the split takes is among the drops too.
    """
    rows = []
    for split in SPLITS:
        kept = humans[humans["split"] == split]
        mine = kept[kept["verdict"] == "preserve"]  # what the console counts
        marked = build.columns(f"splits/{split}", "provisional")["provisional"]
        row = (split, len(mine), len(kept) - len(mine), mine["photo"].nunique(), int(mine["provisional"].sum()))
        rows.append((*row, len(marked), (pc.sum(marked).as_py() or 0) if len(marked) else 0))
    names = ["split", "humans", "to_refine", "photos", "provisional_humans", "samples", "provisional_samples"]
    return pd.DataFrame(rows, columns=names)


def _histogram(values: Sequence[float] | NDArray[np.float64], edges: NDArray[np.float64]) -> pd.DataFrame:
    """Counts and shares of [low, high); what lies above the last edge is counted in the last bin."""
    clipped = np.minimum(np.asarray(values, np.float64), np.nextafter(edges[-1], 0))
    counts, _ = np.histogram(clipped, edges)
    share = counts / max(1, counts.sum())
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts, "share": share})


def aspect_ratio(humans: pd.DataFrame) -> pd.DataFrame:
    """Figure 5a: height / width of the humans' boxes in bins of 0.25; the last bin holds all from 5.75 up."""
    return _histogram(humans["ratio"].dropna().to_numpy(), np.arange(25) / 4)


def scenes(humans: pd.DataFrame) -> pd.DataFrame:
    """Figure 5b: humans by scene category, most first; empty where no scene is known."""
    found = humans["scene"].value_counts()
    rows = sorted(((k, n) for k, n in found.items() if k and n), key=lambda kv: (-kv[1], kv[0]))
    frame = pd.DataFrame(rows, columns=["scene", "count"]).astype({"count": "int64"})
    return frame.assign(share=frame["count"] / max(1, len(humans)))


def density(build: Build, split: str) -> tuple[tuple[float, float, float], ...]:
    """The density requested for a split, as (low, high, weight); nothing where it holds composites."""
    text = build.stage_record(f"splits/{split}").key.get("density")
    try:
        return densities.parse(str(text)).bins if text else ()
    except UserError:
        return ()


def occlusion(build: Build) -> pd.DataFrame:
    """Occlusion ratios of each split in bins of 0.1: count and share, beside the share and count requested, if any."""
    found = []
    for split in SPLITS:
        ratios = build.columns(f"splits/{split}", "occlusion_ratio")["occlusion_ratio"].to_numpy()
        if not len(ratios):
            continue
        bins = density(build, split)
        cuts = {round(v, 9) for a, b, _ in bins for v in (a, b)} | {i / 10 for i in range(11)}
        frame = _histogram(ratios.astype(np.float64), np.array(sorted(cuts)))
        total = sum(w for *_, w in bins)
        share = [sum(w * _part(a, b, lo, hi) for a, b, w in bins) for lo, hi in zip(frame.low, frame.high, strict=True)]
        frame["requested_share"] = np.array(share) / total if total else np.nan
        frame["requested_count"] = frame["requested_share"] * len(ratios)
        found.append(frame.assign(split=split))
    names = ["split", "low", "high", "count", "share", "requested_share", "requested_count"]
    return pd.concat(found)[names].reset_index(drop=True) if found else pd.DataFrame(columns=names)


def _part(a: float, b: float, low: float, high: float) -> float:
    """How much of the density bin [a, b) lies in [low, high); a density is even within its bins."""
    return max(0.0, min(b, high) - max(a, low)) / (b - a) if b > a else 0.0


def size(humans: pd.DataFrame) -> pd.DataFrame:
    """Square root of the humans' mask area in px, in bins that double."""
    return _histogram(humans["area"].to_numpy() ** 0.5, np.array([0.0, *(2.0**k for k in range(4, 13))]))


def parsing(build: Build, humans: pd.DataFrame) -> pd.DataFrame:
    """Per split: humans with a parsing, and the mean share of their mask that it labels (of `PARSING_SAMPLE`)."""
    rows = []
    for split in SPLITS:
        mine = humans[humans["split"] == split]
        known = int(mine["parsed"].sum())
        some = _parsed_sample(build, split) if known else []
        cover = float(np.mean([_labelled(h) for h in some])) if some else np.nan
        rows.append((split, len(mine), known, known / len(mine) if len(mine) else np.nan, cover, len(some)))
    names = ["split", "humans", "with_parsing", "share", "labelled_share_of_mask", "measured_on"]
    return pd.DataFrame(rows, columns=names)


def _parsed_sample(build: Build, split: str) -> list[Human]:
    """The first humans of a split with a parsing, by hash."""
    table = "review" if build.has("review") else f"splits/{split}/humans"
    ids = (i for part in parquet.parts(build.root / table) for i in _parsed(part, split))
    by_hash = heapq.nsmallest(PARSING_SAMPLE, ids, key=lambda i: hashing.unit_hash("parsing", i))
    found = {h.human_id: h for h in build.pick(table, Human, "human_id", by_hash)}
    return [found[i] for i in by_hash]


def _parsed(part: Path, split: str) -> list[str]:
    table = columns_of(part, ("human_id", "split", "verdict", "parsing.height"))
    mine = pc.and_(pc.equal(table["split"], split), pc.equal(table["verdict"], "preserve"))
    chosen = pc.and_(mine, pc.is_valid(table["parsing.height"]))
    return [str(i) for i in table["human_id"].filter(chosen).to_pylist()]


def _labelled(human: Human) -> float:
    mask = human.mask.decode()
    area = int(mask.sum())
    assert human.parsing is not None
    return float((human.parsing.decode()[mask] > 0).sum() / area) if area else 0.0


def tools(build: Build) -> pd.DataFrame:
    """How often each segmenter, parser and maker of initial masks was used, by source (or split)."""
    rows: list[tuple[Any, ...]] = []
    table = build.first_of("parse", "segment")
    found = build.columns(table, "candidate.candidate_id", "segmenter", "parser")
    if found.num_rows:
        of = [source_of(i) for i in found["candidate.candidate_id"].to_pylist()]
        for kind in ("segmenter", "parser"):
            uses = Counter(zip(of, found[kind].to_pylist(), strict=True))
            rows += [(kind, name or "none", source, n) for (source, name), n in sorted(uses.items())]
    for split in SPLITS:
        makers = build.columns(f"splits/{split}", "given.maker")["given.maker"].to_pylist()
        rows += [("initial mask", name, f"split {split}", n) for name, n in sorted(Counter(makers).items())]
    return pd.DataFrame(rows, columns=["kind", "name", "of", "count"])


def closing(build: Build) -> pd.DataFrame:
    """By source: preserved humans, those whose mask had holes or slits closed (`core.closing`), and the px added."""
    counts = build.stage_record("review").counts
    sources = sorted(k.partition("/")[2] for k in counts if k.startswith("preserve/"))
    kinds = ("preserve", "closed", "closed_px")
    rows = [(s, *(counts.get(f"{kind}/{s}", 0) for kind in kinds)) for s in sources]
    return pd.DataFrame(rows, columns=["source", "preserved", "masks_closed", "px_added"])


def groups(build: Build) -> pd.DataFrame:
    """By source: photos with candidates, groups of two or more that show one scene, the photos in them, the largest.

    Photos of one scene share the photo key by which photos fall into splits (`stages.deduplicate`).
    """
    found = build.columns("harvest", "candidate_id", "image.source", "image.image_id", "image.photo")
    frame = found.to_pandas().drop_duplicates("image.image_id")
    keyed = frame[frame["image.photo"].fillna("") != ""]
    sizes = keyed.groupby("image.photo")["image.image_id"].transform("size")
    rows = []
    for source, photos in frame.groupby("image.source", observed=True):
        own = keyed.assign(size=sizes)[(keyed["image.source"] == source) & (sizes > 1)]
        most = int(own["size"].max()) if len(own) else 0
        rows.append((source, len(photos), own["image.photo"].nunique(), len(own), most))
    return pd.DataFrame(rows, columns=["source", "photos", "groups", "photos_in_groups", "largest_group"])


def occluders(build: Build) -> pd.DataFrame:
    """By source: things and persons that can occlude, instances ``lost`` with a photo that cannot be used, and those
    ``in_banks`` of the splits, which are pasted."""
    counts = build.stage_record("harvest").counts
    banks = build.stage_record("bank").counts
    kinds = ("occluders_other", "occluders_person", "occluders_lost")
    of = sorted({k.partition("/")[2] for k in counts if k.startswith(kinds)})
    rows = [
        (source, *(counts.get(f"{kind}/{source}", 0) for kind in kinds), banks.get(f"kept/{source}", 0))
        for source in of
    ]
    return pd.DataFrame(rows, columns=["source", "things", "persons", "lost", "in_banks"])
