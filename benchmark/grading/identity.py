"""What a scored run is called: its model, and a digest of what was handed in and of the split that it was scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ahp_toolkit.core import hashing
from benchmark.grading.pictures import digest_of
from benchmark.grading.submission import Submission, parse
from benchmark.grading.truth import split_digest


def run_id(submission: Submission, digest: str, pictures: Iterable[tuple[str, str]]) -> str:
    """The run's folder name: equal for the same files, whichever boards could be scored.

    Args:
        submission: its tables and run.json.
        digest: the split's.
        pictures: (sample id, sha256) of every picture that could be read, in any order.
    """
    seen = sorted(map(list, pictures))
    said = [submission.digest, digest, *([hashing.digest_value(seen)] if seen else [])]
    return f"{store_name(submission.model)}-{hashing.digest_value(said)[:8]}"


def run_id_of(submission: Submission, pairs: list[tuple[str, str]]) -> str:
    """The run id that `score` would give on a split of these (sample_id, digest) pairs; reads every picture."""
    return run_id(submission, split_digest(pairs), _pictures(submission, {i for i, _ in pairs}))


def _pictures(submission: Submission, left: set[str]) -> Iterator[tuple[str, str]]:
    for where, row in submission.rows() if submission.gives("image") else ():
        name = row.get("sample_id")
        if isinstance(name, str) and name in left:
            left.remove(name)
            image = parse(where, row, submission.root).image
            if image is not None and (found := digest_of(submission.root, image)):
                yield name, found


def store_name(model: str) -> str:
    """A model's name as part of a folder name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in model).lstrip(".") or "model"
