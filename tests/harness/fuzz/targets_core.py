"""Pictures, masks, submissions, decision logs and imports: the other parsers of foreign bytes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ahp_toolkit.core import masks
from ahp_toolkit.core.crops import crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.agreement import by_candidate
from ahp_toolkit.decisions.log import read_decisions
from ahp_toolkit.decisions.merge import Merge, settle
from ahp_toolkit.storage import files, images
from ahp_toolkit.storage.parquet import to_table
from annotation.exchange import decisions
from annotation.exchange import masks as exchange_masks
from benchmark.grading.submission import Submission, validate
from tests.annotation import small
from tests.harness.fuzz import check, mutate
from tests.harness.fuzz.check import Outcome, Target


class Pictures(Target):
    """Headers, pixels and labels of pictures of every kind."""

    name = "images"

    def step(self, rng: Random, huge: bool) -> Outcome:
        data = rng.choice(mutate.pictures())
        change = mutate.png if data[:4] == b"\x89PNG" else mutate.jpeg if data[:2] == b"\xff\xd8" else None
        data = change(data, rng, huge) if change else mutate.flip(data, rng)
        read = rng.choice((images.decode, images.read_labels, images.header))
        try:
            found: Any = read(data)
        except images.ImageError as e:
            check.need(bool(check._REASON.fullmatch(e.reason)), e.reason)
            return Outcome("refused", {e.reason})
        if read is images.decode:
            check.need(found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3, found.shape)
            head = images.header(data)
            check.need(found.shape[:2] == (head.height, head.width), (found.shape, head))
        elif read is images.read_labels:
            check.need(found.dtype == np.uint8 and found.ndim == 2, found.shape)
        return Outcome()


class Masks(Target):
    """RLE in its three forms, and polygons."""

    name = "masks"

    def step(self, rng: Random, huge: bool) -> Outcome:
        h, w = rng.choice(((4, 4), (1, 1), (37, 53), (3, 200)))
        pixels = np.random.default_rng(rng.randrange(1000)).random((h, w)) < rng.random()
        good = masks.encode(pixels)
        kind = rng.randrange(4)
        try:
            if kind == 0:
                made = masks.Mask(h, w, mutate.flip(good.counts, rng))
            elif kind == 3:
                shape = [[rng.uniform(-5, w + 5) for _ in range(rng.choice((4, 6, 8, 7)))] for _ in range(2)]
                made = masks.from_polygons(_floats(json.loads(mutate.dump(mutate.edit(shape, rng, huge)))), h, w)
            else:
                counts: Any = good.runs().tolist() if kind == 1 else good.counts.decode()
                said = mutate.edit({"size": [h, w], "counts": counts}, rng, huge)
                said = json.loads(mutate.dump(said))
                made = masks.from_rle(said["size"], said["counts"], h, w)
        except UserError:
            raise
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as e:  # a bad record
            return Outcome("refused", {type(e).__name__})
        check.mask(made)
        crop_mask(made, Box(-3, -2, 40, 41), 16)
        made.iou(good)
        return Outcome()


def _floats(shape: Any) -> Any:
    if not isinstance(shape, list) or not all(isinstance(p, list) for p in shape):
        raise ValueError("no polygons")
    return shape


class Submissions(Target):
    """Predictions of anybody: JSON in both forms, and folders with a table, run.json and pictures."""

    name = "submission"
    share = 0.75
    IDS = tuple(f"val/{n:04d}#0" for n in range(3))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        blob = np.zeros((256, 256), bool)
        blob[40:200, 90:160] = True
        m = masks.encode(blob)
        runs = {"size": [256, 256], "counts": m.runs().tolist()}
        text = {"size": [256, 256], "counts": m.counts.decode()}
        self.rows: list[dict[str, Any]] = [
            {"sample_id": i, "amodal": (runs, text)[n % 2], "modal": text, "image": f"{n}.png" if n < 2 else None,
             "seconds": 0.5, "model": "x"} for n, i in enumerate(self.IDS)
        ]  # fmt: skip
        self.lists = json.dumps(self.rows).encode()
        self.object = json.dumps({"model": "m", "dataset_digest": "d", "predictions": self.rows}).encode()
        self.root = folder / "submission"
        self.root.mkdir(parents=True, exist_ok=True)
        images.write_png(self.root / "0.png", np.zeros((256, 256, 3), np.uint8))
        self.png = (self.root / "0.png").read_bytes()
        (self.root / "1.png").write_bytes(self.png)
        flat = [r | {"amodal": text} for r in self.rows]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(flat), sink, compression="none")
        self.parquet, self.run = sink.getvalue(), b'{"model": "m", "dataset_digest": "d", "seed": 1}'

    def step(self, rng: Random, huge: bool) -> Outcome:
        pick = rng.random()
        if pick < 0.55:
            path = self.root / "predictions.json"
            path.write_bytes(mutate.json_bytes(rng.choice((self.lists, self.object)), rng, huge))
        elif pick < 0.8:
            path = self.root / "predictions.parquet"
            path.write_bytes(mutate.flip(self.parquet, rng) if rng.random() < 0.6 else self.table(rng))
        else:
            path = self.root / "predictions.json"
            path.write_bytes(self.lists)
            if rng.random() < 0.5:
                (self.root / "run.json").write_bytes(mutate.json_bytes(self.run, rng, huge))
            (self.root / "0.png").write_bytes(mutate.png(self.png, rng, huge))
        try:
            return self.read(self.root if rng.random() < 0.8 else path)
        finally:
            path.unlink()
            (self.root / "run.json").unlink(missing_ok=True)
            (self.root / "0.png").write_bytes(self.png)

    def read(self, path: Path) -> Outcome:
        """What ``validate`` and ``score`` do with a submission before any metric."""
        out = Outcome()
        try:
            found = Submission(path)
            check.printable(found.model)
            for problem in validate(found, self.IDS, "d"):
                text = str(problem)
                check.printable(text)
                check.need("\n" not in text, text)
                out.drop(problem.kind)
            for key in ("amodal", "modal", "image"):
                found.gives(key)
            check.need(set(found.fetch(self.IDS)) <= set(self.IDS), "foreign ids")
            check.need(len(found.digest) == 64, "digest")
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return out

    def table(self, rng: Random) -> bytes:
        """A table of other types or values than asked for."""
        said = json.loads(json.dumps(self.rows))
        for _ in range(rng.choice((1, 2))):
            said = json.loads(json.dumps(mutate.edit(said, rng)))
        sink = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist([r for r in said if isinstance(r, dict)]), sink)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, UnicodeError):
            return mutate.flip(self.parquet, rng)
        return sink.getvalue()


class Decisions(Target):
    """Logs of decisions."""

    name = "decisions"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "ann.jsonl"
        shape = {"size": [4, 4], "counts": masks.encode(np.eye(4, dtype=bool)).counts.decode()}
        d = {"id": "1", "candidate_id": "coco/1#1", "verdict": "refine", "reviewer": "ann", "mask_digest": "0" * 16,
             "reason": "occluded", "note": "", "corrected": shape, "seconds": 1.5, "at": "2026-01-01T00:00:00Z",
             "provisional": False}  # fmt: skip
        back = {"id": "3", "candidate_id": "coco/1#1", "reviewer": "ann", "retracts": "2", "at": "2026-01-01T00:00:01Z"}
        preserve = d | {"id": "2", "verdict": "preserve", "corrected": None}
        self.lines = [d, preserve, back, d | {"id": "4", "candidate_id": "coco/2#1"}]

    def step(self, rng: Random, huge: bool) -> Outcome:
        lines = [json.dumps(w).encode() for w in self.lines]
        at = rng.randrange(len(lines))
        lines[at] = mutate.json_bytes(lines[at], rng, huge)
        self.path.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"\n", b"", b"\n\n")))
        try:
            found = read_decisions([self.path])
            settle(by_candidate(found), Merge())
            to_table(found, Decision)
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return Outcome()


class Imports(Target):
    """Decisions and masks made with other tools: CSV, Parquet, COCO JSON, PNG."""

    name = "imports"
    share = 0.1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder / "build"
        people = [small.person(1), small.person(2), small.person(2, 1)]
        small.write(self.root, people)
        for n, p in enumerate(people[:2]):
            small.say(self.root, "ann", p.candidate.candidate_id, "refine", corrected=people[n].mask)
        decisions.export_decisions(self.root, folder / "d.csv")
        decisions.export_decisions(self.root, folder / "d.parquet")
        exchange_masks.export_coco(self.root, folder / "m.json")
        exchange_masks.export_pngs(self.root, folder / "pngs")
        shutil.rmtree(self.root / "decisions")
        found = [folder / "d.csv", folder / "d.parquet", folder / "m.json", *sorted((folder / "pngs").glob("*.png"))]
        self.whole = {p: p.read_bytes() for p in found}
        self.base = set(self.root.iterdir())

    def step(self, rng: Random, huge: bool) -> Outcome:
        path = rng.choice(list(self.whole))
        path.write_bytes(mutate.of_kind(path.suffix)(self.whole[path], rng, huge))
        out = Outcome()
        try:
            if path.suffix in (".csv", ".parquet"):
                done = decisions.import_decisions(self.root, path, rng.choice(("", "bob")))
            else:
                use: Any = rng.choice(("proposal", "preserve", "refine"))
                source = path.parent if path.suffix == ".png" else path
                done = exchange_masks.import_masks(self.root, source, "bob", use)
            for bad in done.bad:
                check.printable(bad.why)
                out.drop("bad_row")
            for log in (self.root / "decisions").glob("*.jsonl"):
                to_table(read_decisions([log]), Decision)
        except UserError as e:
            check.one_line(e)
            out = Outcome("refused", {"user_error"})
        finally:
            path.write_bytes(self.whole[path])
            for made in set(self.root.iterdir()) - self.base:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
        return out


class Json(Target):
    """JSON files of ours that somebody else may have changed: run.json, build.json, stage.json."""

    name = "json"
    share = 0.1

    def step(self, rng: Random, huge: bool) -> Outcome:
        path = self.folder / "run.json"
        path.write_bytes(mutate.json_bytes(b'{"model": "m", "a": [1, {"b": 2.5}], "c": "text"}', rng, huge))
        try:
            files.read_json(path)
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return Outcome()
