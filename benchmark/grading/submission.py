"""Predictions from a folder or one file, by anybody: read row by row, nothing of it trusted.

A submission is a folder with ``predictions.parquet``, ``part-*.parquet`` or ``predictions.json``, or one such file
alone, which has no pictures. Each record: ``sample_id``; ``amodal`` and ``modal``, COCO RLE on the 256x256 crop;
``image``, the path of an 8-bit RGB PNG inside the folder; ``seconds``. Beside it, optionally, ``run.json``. A record at
fault counts as missing on the board that the fault touches: either mask on the mask board, the picture on the content
board.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.text import one_line
from ahp_toolkit.storage import files
from benchmark.grading import foreign
from benchmark.grading.claims import TEXTS, cleaned
from benchmark.grading.pictures import kind_of, read_picture
from benchmark.grading.records import LONGEST_ID, Parsed, Problems, Row, parse

#: The field that plays on a board, and its name in messages.
BOARDS = {"mask": ("amodal", "amodal mask"), "content": ("image", "picture")}
#: What a folder of predictions must not hold: a build, its splits, or true crops.
_OF_A_BUILD = ("build.json", "splits", "harvest", "digests.json", "crops/digests.json", ".crops.written")


class Submission:
    """A submission's records, looked up by sample id.

    ``root`` is its folder, None for a single file; ``run`` holds the cleaned claims of run.json (or of the top of
    predictions.json), ``claims`` the faults in them. ``checked``: another process has read the tables through already.

    Raises:
        UserError: when there are no predictions, they cannot be read, or the folder holds a build.
    """

    def __init__(self, path: Path, checked: bool = False) -> None:
        self.path = path
        self.root = path if path.is_dir() else None
        self.files = _files(path)
        run = {}
        if self.root is not None and (self.root / "run.json").exists():
            run = foreign.read_object(_inside(self.root, self.root / "run.json"))
        self._json: list[foreign.JsonRecord] | None = None
        if self.files[0].suffix == ".json":
            self._json, beside = foreign.read_json(self.files[0])
            run = {**beside, **run}
        elif not checked:
            foreign.check_tables(self.files)
        self.run, self.claims = cleaned(run)
        if self.run.get("unfinished"):
            raise UserError(f"{path}: the predictions were not finished; predict again")
        if self.run.get("parts") not in (None, hashing.digest_files(self.files)):
            raise UserError(f"{path}: its tables are not those that run.json was written with; predict again")

    @property
    def model(self) -> str:
        """The method's name: run.json's ``model``, else the name of the folder, or of the file without its ending."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100  `..` has a name, a link keeps its own
        name = one_line(path.name if self.root is not None else path.stem)[: TEXTS["model"]]
        return str(self.run.get("model") or name)

    @cached_property
    def digest(self) -> str:
        """`digest_of` its path."""
        return digest_of(self.path)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(where, record) of every record, in order."""
        for path in self.files:
            rows = foreign.table_rows(path) if self._json is None else map(foreign.row_of, self._json)
            for number, row in enumerate(rows, 1):
                yield f"{path.name} record {number}", row

    def ids(self) -> Iterator[tuple[str, str]]:
        """(where, sample_id) of every record, without its masks."""
        for path in self.files:
            for number, name in enumerate(self._ids_of(path), 1):
                yield f"{path.name} record {number}", (name if isinstance(name, str) else repr(name))[:LONGEST_ID]

    def _ids_of(self, path: Path) -> Iterator[str | None]:
        if self._json is not None:
            return map(foreign.id_of, self._json)
        return (r["sample_id"] for r in foreign.table_rows(path, ["sample_id"]))

    def boards(self) -> set[str]:
        """The boards that it plays on: those of which any record has the field."""
        return {board for board, (key, _) in BOARDS.items() if self.gives(key)}

    def gives(self, key: str) -> bool:
        """Whether any record has ``amodal``, ``modal`` or ``image``."""
        if self._json is not None:
            return any(foreign.has(r, key) for r in self._json)
        return any(foreign.has_column(path, key) for path in self.files)

    def fetch(self, wanted: Sequence[str]) -> dict[str, tuple[str, Row]]:
        """The first record of each wanted sample id; memory holds the wanted ones only (a JSON is held whole)."""
        found: dict[str, tuple[str, Row]] = {}
        if self._json is not None:
            at = ((i, self._index[i]) for i in wanted if i in self._index)
            return {i: (self.files[0].name, foreign.row_of(self._json[k])) for i, k in at}
        for path in self.files:
            for row in foreign.wanted_rows(path, sorted(wanted)):
                found.setdefault(row["sample_id"], (path.name, row))
        return found

    @cached_property
    def _index(self) -> dict[str, int]:
        """The place of the first record of each sample id in a JSON."""
        found: dict[str, int] = {}
        for k, record in enumerate(self._json or ()):
            if (name := foreign.id_of(record)) is not None:
                found.setdefault(name, k)
        return found

    def keys(self) -> list[str]:
        """The first keys or columns of its records, for messages."""
        return foreign.keys_of(self.files[0]) if self._json is not None else []


def digest_of(path: Path) -> str:
    """sha256 over a submission's tables and run.json (pictures are named in them; their bytes: `identity`).

    Raises:
        UserError: when there are no predictions.
    """
    extra = [path / "run.json"] if path.is_dir() and (path / "run.json").is_file() else []
    return hashing.digest_files([*_files(path), *extra])


def check_apart(submission: Submission, split: Path) -> None:
    """Check that a submission is neither part of the split that it is scored on, nor around it.

    Raises:
        UserError: when it is.
    """
    mine, theirs = submission.path.resolve(), split.resolve()
    if mine.is_relative_to(theirs) or (submission.root is not None and theirs.is_relative_to(mine)):
        raise UserError(
            f"{submission.path}: lies in, or holds, the split {split}; put the submission into a folder of its own"
        )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.suffix not in (".json", ".parquet") or not path.is_file():
            raise UserError(f"{path}: expected a folder, a .json or a .parquet file of predictions; see SUBMIT.md")
        return [path]
    for name in _OF_A_BUILD:
        if os.path.lexists(path / name):
            raise UserError(f"{path}: holds {name} of a build; put the submission into a folder of its own")
    for pattern in ("predictions.parquet", "part-*.parquet", "predictions.json"):
        if found := sorted(path.glob(pattern)):
            return [_inside(path, p) for p in found]
    raise UserError(
        f"{path}: expected predictions.parquet, part-*.parquet or predictions.json in it, found none; see SUBMIT.md"
    )


def _inside(root: Path, file: Path) -> Path:
    """A plain file of a submission, and no link out of it.

    Raises:
        UserError: when it is anything else.
    """
    try:
        path = files.safe_join(root, file.name)
    except ValueError as e:
        raise UserError(f"{file}: {e}; put the file itself there") from e
    if not path.is_file():
        raise UserError(f"{file}: expected a plain file, got a pipe, a device or a folder")
    return path


@dataclass
class Check:
    """How a submission's ids meet the split's: problems found, and the sample ids that have a record."""

    problems: Problems
    present: set[str]


def check_ids(submission: Submission, ids: Sequence[str], digest: str) -> Check:
    """Name duplicates and foreign ids; the first of two records of a sample counts.

    Raises:
        UserError: when run.json names another split's digest, or not one id is of this split.
    """
    claimed = submission.run.get("dataset_digest")
    if claimed and claimed != digest:
        raise UserError(
            f"{submission.path}: run.json was made on dataset {str(claimed)[:12]}…, this split is {digest[:12]}…; "
            "predict this split, or score against the one it was made on"
        )
    known = set(ids)
    present: set[str] = set()
    problems = Problems(submission.claims)
    first, count = "", 0
    for where, name in submission.ids():
        first, count = first or name, count + 1
        if name not in known:
            problems.add("foreign", where, name, "no sample of this split has this id; not scored")
        elif name in present:
            problems.add("duplicate", where, name, "a second record of this sample; the first one counts")
        else:
            present.add(name)
    if not present:
        found = f"the first one's is {first[:80]}" if first not in ("", "None") else "there is none"
        keys = f" (its keys: {', '.join(submission.keys())})" if first == "None" else ""
        raise UserError(
            f"{submission.path}: not one of its {count} records is of this split: expected the key sample_id with one "
            f"of {len(known)} ids such as {ids[0][:80]}, {found}{keys}; see SUBMIT.md"
        )
    return Check(problems, present)


def validate(submission: Submission, ids: Sequence[str], digest: str) -> Problems:
    """Everything that is wrong, record by record; last what is missing, for each board that the submission plays on.

    Raises:
        UserError: as `check_ids`.
    """
    check = check_ids(submission, ids, digest)
    problems = check.problems
    seen: set[str] = set()
    named: dict[str, set[str]] = {board: set() for board in BOARDS}  # samples with nothing more to name on a board
    for where, row in submission.rows():
        parsed = parse(where, row, submission.root)
        problems.extend(parsed.problems)
        name = str(row.get("sample_id"))[:LONGEST_ID]
        empty = parsed.amodal is None and parsed.image is None and not parsed.problems
        if empty:
            problems.add("empty_record", where, name, "neither an amodal mask nor a picture")
        for board, (key, _) in BOARDS.items() if name not in seen else ():  # the first of two records counts
            if empty or getattr(parsed, key) is not None or key in parsed.faults:
                named[board].add(name)
        if name in check.present:
            seen.add(name)
        _check_picture(problems, where, name, parsed, submission.root)
    for board in sorted(submission.boards(), reverse=True) or ["mask"]:
        detail = f"scores as {'empty' if board == 'mask' else 'black'} on the {board} board"
        for i in ids:
            if i not in named[board]:
                what = BOARDS[board][1] if i in check.present else "record"
                problems.add("missing", submission.path.name, i, f"no {what}; {detail}")
    return problems


def _check_picture(problems: Problems, where: str, name: str, parsed: Parsed, root: Path | None) -> None:
    if parsed.image is not None and root is not None:
        try:
            read_picture(files.safe_join(root, parsed.image))
        except ValueError as e:
            problems.add(kind_of(e), where, name, f"image: {e}")
