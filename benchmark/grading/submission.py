"""Predictions from a folder or one JSON, by anybody: read row by row, every fault named and counted, none believed.

A submission is a folder with ``predictions.parquet``, ``part-*.parquet`` or ``predictions.json``, or one JSON file.
Each record: ``sample_id``; ``amodal`` and ``modal``, COCO RLE on the 256x256 crop; ``image``, the path of an 8-bit RGB
PNG below the folder; ``seconds``. Beside it, optionally, ``run.json``. A record at fault counts as missing on the board
that the fault touches: either mask on the mask board, the picture on the content board.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.limits import MAX_GROUP_BYTES, MAX_JSON_BYTES, MAX_TABLE_ROWS
from ahp_toolkit.core.masks import Mask, from_rle
from ahp_toolkit.core.text import one_line
from ahp_toolkit.storage import files
from benchmark.grading.pictures import picture_problem

Row = dict[str, Any]
T = TypeVar("T")
_BATCH, _LONGEST_ID = 512, 1024
_FIELDS = ("sample_id", "amodal", "modal", "image", "seconds", "model")
#: The field that plays on a board, and what it is called.
BOARDS = {"mask": ("amodal", "amodal mask"), "content": ("image", "picture")}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: ``kind`` is one word for counting, ``where`` the file and record, ``detail`` expected and got."""

    kind: str
    where: str
    sample_id: str
    detail: str

    def __str__(self) -> str:
        return one_line(f"{self.where}: {self.kind}: {self.sample_id}: {self.detail}")


@dataclass(slots=True)
class Parsed:
    """What is usable of one record; ``faults`` are the fields that are given and at fault: None is not absent there."""

    amodal: Mask | None = None
    modal: Mask | None = None
    image: str | None = None
    seconds: float | None = None
    problems: list[Problem] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    @property
    def masks(self) -> tuple[Mask, Mask | None] | None:
        """(amodal, modal or None where the record has none); None: missing, or one of the two is at fault."""
        return None if self.amodal is None or "modal" in self.faults else (self.amodal, self.modal)


class Submission:
    """A submission's records, looked up by sample id; ``run`` is what run.json says (empty without one)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path if path.is_dir() else path.parent
        self.run = _run_of(path)
        self.files = _files(path)
        if self.run.get("parts") not in (None, hashing.digest_files(self.files)):
            raise UserError(f"{path}: its tables are not those that run.json was written with; predict again")
        self._json: list[Row] | None = None
        if self.files[0].suffix == ".json":
            self._json, about = _read_json(self.files[0])
            self.run = {**about, **self.run}

    @property
    def model(self) -> str:
        """The method's name: run.json's ``model``, else the name of the folder, or of the file without its ending."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100  `..` has a name, a link keeps its own
        return one_line(self.run.get("model") or (path.name if path.is_dir() else path.stem))[:200]

    @property
    def digest(self) -> str:
        """sha256 over the prediction files and run.json (pictures are named in them; their bytes: `identity`)."""
        extra = [p for p in [self.root / "run.json"] if self.path.is_dir() and p.is_file()]
        return hashing.digest_files([*self.files, *extra])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(where, record) of every record, in order."""
        for path in self.files:
            for number, row in enumerate(self._rows_of(path), 1):
                yield f"{path.name} record {number}", row

    def _rows_of(self, path: Path) -> Iterator[Row]:
        if self._json is not None:
            yield from self._json
            return
        names = [n for n in _FIELDS if n in _parquet(path).schema_arrow.names]
        with _readable(path):
            for batch in _batches(path, names):
                yield from batch.to_pylist()

    def ids(self) -> Iterator[tuple[str, str]]:
        """(where, sample_id) of every record, without its masks."""
        for path in self.files:
            if self._json is not None:
                names: Iterator[object] = (r.get("sample_id") for r in self._json)
            else:
                names = (n for b in _batches(path, ["sample_id"]) for n in b["sample_id"].to_pylist())
            for number, name in enumerate(_read_of(names, path), 1):
                yield f"{path.name} record {number}", (name if isinstance(name, str) else repr(name))[:_LONGEST_ID]

    def boards(self) -> set[str]:
        """The boards that it plays on: those of which any record has the field."""
        return {board for board, (key, _) in BOARDS.items() if self.gives(key)}

    def gives(self, key: str) -> bool:
        """Whether any record has ``amodal``, ``modal`` or ``image``."""
        if self._json is not None:
            return any(r.get(key) is not None for r in self._json)
        having = (f for f in self.files if key in _parquet(f).schema_arrow.names)
        return any(b[key].null_count < len(b) for f in having for b in _read_of(_batches(f, [key]), f))

    def fetch(self, wanted: Sequence[str]) -> dict[str, tuple[str, Row]]:
        """The first record of each wanted sample id; memory holds the wanted ones only (a JSON is held whole)."""
        keys = set(wanted)
        rows: Iterator[Row]
        if self._json is not None:
            rows = (r for r in self._json if isinstance(name := r.get("sample_id"), str) and name in keys)
        else:
            rows = (r for f in self.files for r in _wanted(f, pa.array(sorted(keys), pa.string())))
        found: dict[str, tuple[str, Row]] = {}
        for row in _read_of(rows, self.path):
            found.setdefault(row["sample_id"], (self.files[0].name, row))
        return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Pages, texts and types can be damaged behind a good footer."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read as Parquet ({e}); write the predictions again") from e


def _read_of(values: Iterable[T], path: Path) -> Iterator[T]:
    """``values``, read from ``path`` as they are asked for."""
    with _readable(path):
        yield from values


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a file in small batches: a value that a dictionary repeats costs as often as it stands in one."""
    yield from _parquet(path).iter_batches(batch_size=_BATCH, columns=names)


def _wanted(path: Path, ids: pa.StringArray) -> Iterator[Row]:
    """The records of some ids; of a row group that holds none of them the ids alone are read.

    No ``pyarrow.dataset``: its scanner waits for ever (26.0) where a reading thread meets a damaged footer.
    """
    file = _parquet(path)
    names = [n for n in _FIELDS if n in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        if any(pc.any(_are_in(b, ids)).as_py() for b in file.iter_batches(_BATCH, [group], ["sample_id"])):
            for batch in file.iter_batches(_BATCH, [group], names):
                yield from batch.filter(_are_in(batch, ids)).to_pylist()


def _are_in(batch: pa.RecordBatch, ids: pa.StringArray) -> pa.BooleanArray:
    return pc.is_in(batch["sample_id"].cast(pa.string()), ids)


def _parquet(path: Path) -> pq.ParquetFile:
    with _readable(path):
        found = pq.ParquetFile(path)
        names = found.schema_arrow.names
        _check_claims(path, found.metadata)
    if names.count("sample_id") != 1:
        raise UserError(f"{path}: expected a column sample_id, got {', '.join(names)}; see SUBMIT.md")
    kind = found.schema_arrow.field("sample_id").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{path}: expected text in the column sample_id, got {kind}; see SUBMIT.md")
    return found


def _check_claims(path: Path, said: pq.FileMetaData) -> None:
    """A few kilobytes of Parquet can claim billions of rows.

    Columns are not asked: pyarrow 26 aborts the process (an exception nobody catches) where one's footer is damaged.
    """
    largest = max((said.row_group(g).total_byte_size for g in range(said.num_row_groups)), default=0)
    if said.num_rows > MAX_TABLE_ROWS or largest > MAX_GROUP_BYTES:
        raise UserError(
            f"{path}: {said.num_rows} rows and row groups of up to {largest} bytes; at most {MAX_TABLE_ROWS} rows and "
            f"{MAX_GROUP_BYTES} bytes are read; write smaller row groups"
        )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in (".json", ".parquet"):
            raise UserError(f"{path}: expected a folder, a .json or a .parquet file of predictions; see SUBMIT.md")
        return [path]
    for pattern in ("predictions.parquet", "part-*.parquet", "predictions.json"):
        if found := sorted(path.glob(pattern)):
            return [_inside(path, p) for p in found]
    raise UserError(
        f"{path}: expected predictions.parquet, part-*.parquet or predictions.json in it, found none; see SUBMIT.md"
    )


def _inside(root: Path, file: Path) -> Path:
    """A file of a submission, no link out of it: what lies elsewhere was not submitted."""
    try:
        return files.safe_join(root, file.name)
    except ValueError as e:
        raise UserError(f"{file}: {e}; put the file itself there") from e


def _run_of(path: Path) -> dict[str, Any]:
    file = path / "run.json"
    if not path.is_dir() or not file.is_file():
        return {}
    run = files.read_json(_inside(path, file))
    if not isinstance(run, dict):
        raise UserError(f"{file}: expected one JSON object, got {type(run).__name__}")
    if run.get("unfinished"):
        raise UserError(f"{path}: the predictions were not finished; predict again")
    return run


def _not_finite(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _read_json(path: Path) -> tuple[list[Row], dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes; write Parquet")
        value = json.loads(path.read_bytes(), parse_constant=_not_finite)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({e}); see SUBMIT.md") from e
    about: dict[str, Any] = {}
    if isinstance(value, dict):
        about = {k: v for k, v in value.items() if k != "predictions"}
        value = value.get("predictions")
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of predictions, or an object with one under 'predictions'")
    return [r if isinstance(r, dict) else {"sample_id": None} for r in value], about


def parse(where: str, row: Row, root: Path) -> Parsed:
    """Check one record; what is at fault is left out and named.

    Pictures are checked by `pictures` when they are read.
    """
    out = Parsed()
    name = str(row.get("sample_id"))
    for key in ("amodal", "modal"):
        try:
            setattr(out, key, _mask(row.get(key)))
        except (ValueError, TypeError, KeyError, UnicodeError, OverflowError) as e:
            kind = "wrong_size" if "wrong size" in str(e) else "bad_mask"
            out.faults.add(key)
            out.problems.append(Problem(kind, where, name, f"{key}: {e}; masks are COCO RLE on the 256x256 crop"))
    image = row.get("image")
    if image is not None and image == image:  # pandas writes NaN for "no picture"
        try:
            files.safe_join(root, str(image))
            out.image = str(image)
        except ValueError as e:
            out.faults.add("image")
            out.problems.append(Problem("bad_path", where, name, f"image: {e}; give a path below the submission"))
    seconds = row.get("seconds")
    if isinstance(seconds, (int, float)) and 0 <= seconds < 1e12:
        out.seconds = float(seconds)
    return out


def _mask(value: object) -> Mask | None:
    if value is None or value != value:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object with size and counts, got {type(value).__name__}")
    size = value["size"] if value.get("size") is not None else (value["height"], value["width"])
    return from_rle(size, value["counts"], SIDE, SIDE)


@dataclass
class Check:
    """How a submission's ids meet the split's: problems found, and the sample ids that have a record."""

    problems: list[Problem]
    present: set[str]


def check_ids(submission: Submission, ids: Sequence[str], digest: str) -> Check:
    """Name duplicates and foreign ids; the first of two records of a sample counts.

    Raises:
        UserError: when run.json names another split's digest, or not one id is of this split.
    """
    said = submission.run.get("dataset_digest")
    if said and said != digest:
        raise UserError(
            f"{submission.path}: run.json was made on dataset {str(said)[:12]}…, this split is {digest[:12]}…; "
            "predict this split, or score against the one it was made on"
        )
    known = set(ids)
    present: set[str] = set()
    problems: list[Problem] = []
    for where, name in submission.ids():
        if name not in known:
            problems.append(Problem("foreign", where, name, "no sample of this split has this id; not scored"))
        elif name in present:
            problems.append(Problem("duplicate", where, name, "a second record of this sample; the first one counts"))
        else:
            present.add(name)
    if not present:
        raise UserError(
            f"{submission.path}: not one of its {len(problems)} records is of this split ({len(known)} ids)"
        )
    return Check(problems, present)


def validate(submission: Submission, ids: Sequence[str], digest: str) -> list[Problem]:
    """Everything that is wrong, record by record; last what is missing, for each board that the submission plays on.

    Raises:
        UserError: as `check_ids`.
    """
    check = check_ids(submission, ids, digest)
    problems = check.problems
    seen: set[str] = set()
    told: dict[str, set[str]] = {board: set() for board in BOARDS}  # samples that need no word more on a board
    for where, row in submission.rows():
        parsed = parse(where, row, submission.root)
        problems += parsed.problems
        name = str(row.get("sample_id"))
        empty = parsed.amodal is None and parsed.image is None and not parsed.problems
        if empty:
            problems.append(Problem("empty_record", where, name, "neither an amodal mask nor a picture"))
        for board, (key, _) in BOARDS.items() if name not in seen else ():  # the first of two records counts
            if empty or getattr(parsed, key) is not None or key in parsed.faults:
                told[board].add(name)
        seen.add(name)
        if parsed.image is not None and (fault := picture_problem(submission.root, parsed.image)):
            problems.append(Problem(fault[0], where, name, f"image: {fault[1]}"))
    for board in sorted(submission.boards(), reverse=True) or ["mask"]:
        absent = [i for i in ids if i not in told[board]]
        what = {i: BOARDS[board][1] if i in check.present else "record" for i in absent}
        detail = f"scores as {'empty' if board == 'mask' else 'black'} on the {board} board"
        problems += [Problem("missing", submission.path.name, i, f"no {what[i]}; {detail}") for i in absent]
    return problems


def counted(problems: Sequence[Problem]) -> dict[str, int]:
    """Number of problems of each kind, sorted by kind."""
    return dict(sorted(Counter(p.kind for p in problems).items()))
