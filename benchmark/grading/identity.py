"""The name of a scored run: its model, and a digest of the submission's files and of the split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ahp_toolkit.core import hashing
from benchmark.grading.pictures import digest_of
from benchmark.grading.records import parse
from benchmark.grading.submission import Submission

_LONGEST = 100  # bytes of the model in a folder name


def run_id(submission: Submission, digest: str, pictures: Iterable[tuple[str, str]]) -> str:
    """The run's folder name: equal for the same files, whichever boards could be scored.

    Args:
        submission: its tables and run.json.
        digest: the split's.
        pictures: (sample id, sha256) of every picture that could be read, in any order.
    """
    seen = sorted(map(list, pictures))
    parts = [submission.digest, digest, *([hashing.digest_value(seen)] if seen else [])]
    return f"{store_name(submission.model)}-{hashing.digest_value(parts)[:8]}"


def run_id_of(submission: Submission, ids: Iterable[str], digest: str) -> str:
    """The run id that `score` would give on a split of these sample ids and this digest; reads every picture."""
    return run_id(submission, digest, _pictures(submission, set(ids)))


def _pictures(submission: Submission, left: set[str]) -> Iterator[tuple[str, str]]:
    if submission.root is None or not submission.gives("image"):
        return
    for where, row in submission.rows():
        name = row.get("sample_id")
        if isinstance(name, str) and name in left:
            left.remove(name)
            image = parse(where, row, submission.root).image
            if image is not None and (found := digest_of(submission.root, image)):
                yield name, found


def store_name(model: str) -> str:
    """A model's name as part of a folder name."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in model).lstrip(".")
    return plain.encode()[:_LONGEST].decode(errors="ignore") or "model"
