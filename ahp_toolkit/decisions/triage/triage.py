"""Triage: orders the queue by p(preserve) and proposes auto-discards under a stated risk. It never preserves.

Scores come from models that never saw a decision on any human of the same photo (folds by photo), so no score knows its
own answer. A random share of all candidates, the audit, always goes to people and never trains anything. Of
the true preserves in it, the k lowest-scored give the threshold; the share of all true preserves below it is at most
the Clopper-Pearson upper bound of k in n (at the stated confidence), which must not exceed the stated risk. As long as
the audit is too small to prove it, nothing is discarded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.merge import Merge, settle
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.decisions.triage.features import NAMES, Features, Row, embedded, matrix, read_embeddings
from ahp_toolkit.decisions.triage.models import FOLDS, cross_fitted, fold_of, quality, rule_scores
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Stage
from ahp_toolkit.storage import files, parquet

FOLDER = "triage"
PAPER_PACE = 3.26  # s a sample (paper §4.1)
AUDIT_EVERY = 4  # until the audit is through, every 4th candidate of the queue is one of it
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Triage:
    """The triage of a candidate: ``score`` p(preserve), ``rank`` its place in the queue from 0.

    ``auto_discard``: proposed to be discarded unseen. ``audit``: belongs to the random share that people always see.
    """

    candidate_id: str
    score: float
    rank: int
    auto_discard: bool
    audit: bool


@dataclass(frozen=True)
class Settings:
    """How triage is done.

    Attributes:
        risk: at most this share in (0, 1) of true preserves may be lost, with ``confidence``.
        confidence: of the upper bound, in (0, 1).
        audit: share in (0, 1) of candidates that always go to people, chosen by hash.
        protect: verdicts whose loss counts.
        seed: of the hash that draws the audit, and of the models.

    Raises:
        UserError: when a value is out of its range.
    """

    risk: float = 0.01
    confidence: float = 0.95
    audit: float = 0.1
    protect: tuple[str, ...] = ("preserve",)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("risk", "confidence", "audit"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"triage --{name}: expected a share above 0 and below 1, got {getattr(self, name):g}")

    def audited(self, candidate_id: str) -> float | None:
        """A candidate's place in the audit's order in [0, 1), or None when it is not of the audit."""
        u = hashing.unit_hash("audit", self.seed, candidate_id)
        return u / self.audit if u < self.audit else None


@dataclass(frozen=True)
class Audit:
    """What the audit proves. Of ``preserves`` protected humans among its first ``decided``, ``lost`` score below.

    ``waiting`` decided ones come after one that is not decided yet, and do not count: the sample must stay random.
    """

    size: int
    decided: int
    waiting: int
    preserves: int
    lost: int
    upper: float
    threshold: float
    needed: int


def upper_bound(lost: int, n: int, confidence: float) -> float:
    """Clopper-Pearson upper bound (one-sided) of a share, ``lost`` of ``n`` seen; 1 where n is 0."""
    from scipy.stats import beta

    return float(beta.ppf(confidence, lost + 1, n - lost)) if lost < n else 1.0


def needed(risk: float, confidence: float) -> int:
    """How many audited preserves, none of them lost, are the fewest that prove a risk."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-risk)))


def threshold_of(scores: Floats, risk: float, confidence: float) -> tuple[float, int, float]:
    """(threshold, k, upper bound): below the threshold lie at most k of the audited preserves' ``scores``.

    The k + 1st lowest of n scores has at most ``upper_bound(k, n)`` of the population below it: the largest k whose
    bound keeps the risk is taken. (0, 0, bound of none lost) when even k = 0 does not.
    """
    n = len(scores)
    k = 0
    while k < n and upper_bound(k, n, confidence) <= risk:
        k += 1
    if k == 0:
        return 0.0, 0, upper_bound(0, n, confidence)
    return float(np.sort(scores)[k - 1]), k - 1, upper_bound(k - 1, n, confidence)


def audit_of(ids: Sequence[str], scores: Floats, verdicts: Mapping[str, str], s: Settings) -> Audit:
    """Judge the audit: its decided candidates in the order of the hash, up to the first undecided one."""
    places = [(u, i) for i, cid in enumerate(ids) if (u := s.audited(cid)) is not None]
    order = [i for _, i in sorted(places)]
    decided = next((k for k, i in enumerate(order) if ids[i] not in verdicts), len(order))
    kept = [i for i in order[:decided] if verdicts[ids[i]] in s.protect]
    t, lost, upper = threshold_of(scores[kept], s.risk, s.confidence)
    waiting = sum(ids[i] in verdicts for i in order[decided:])
    return Audit(len(order), decided, waiting, len(kept), lost, upper, t, needed(s.risk, s.confidence))


@dataclass(frozen=True)
class Sorted:
    """The whole triage: one record a candidate in the order of ``ids``, the audit, and the report."""

    records: tuple[Triage, ...]
    audit: Audit
    report: dict[str, Any] = field(default_factory=dict)


def triage(rows: Sequence[Row], verdicts: Mapping[str, str], s: Settings, extra: Floats | None = None) -> Sorted:
    """Score, order and thin candidates.

    Args:
        rows: their features.
        verdicts: candidate id -> what people have decided so far (never a rule's verdict).
        s: see `Settings`.
        extra: more columns [candidates, any], such as embeddings.
    """
    ids = [r.candidate_id for r in rows]
    x = matrix(rows) if extra is None else np.hstack([matrix(rows), extra])
    audit_at = [s.audited(cid) for cid in ids]
    train = np.array([cid in verdicts and u is None for cid, u in zip(ids, audit_at, strict=True)], bool)
    y = np.array([verdicts.get(cid) in s.protect for cid in ids], bool)
    photos = [r.photo for r in rows]
    method, scores = cross_fitted(x, y, train, photos, s.seed)
    if scores is None:
        scores = rule_scores(matrix(rows))
    audit = audit_of(ids, scores, verdicts, s)
    judged = np.array([cid in verdicts for cid in ids], bool)
    auto = (scores < audit.threshold) & ~judged & np.array([u is None for u in audit_at], bool)
    ranks = _ranks(ids, scores, audit_at, auto, judged)
    records = tuple(
        Triage(cid, float(scores[i]), int(ranks[i]), bool(auto[i]), audit_at[i] is not None)
        for i, cid in enumerate(ids)
    )
    report = _report(method, audit, s, verdicts, ids, auto) | quality(scores[judged], y[judged])
    return Sorted(records, audit, report | {"trained_on": int(train.sum()) if method != "rule" else 0})


def _ranks(
    ids: Sequence[str],
    scores: Floats,
    audit_at: Sequence[float | None],
    auto: NDArray[np.bool_],
    judged: NDArray[np.bool_],
) -> list[int]:
    """Places in the queue: by score, every `AUDIT_EVERY`-th one of the audit by its hash; at the end auto-discards.

    ``judged`` ones keep their place by score, since the plan may lease them to others; they take no turn of the audit.
    """
    by_score = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    best = [i for i in by_score if not judged[i]]
    audit = iter(sorted((i for i in best if audit_at[i] is not None), key=lambda i: audit_at[i] or 0.0))
    rest = iter([i for i in best if audit_at[i] is None and not auto[i]])
    queued: list[int] = []
    while True:
        i = next(audit if len(queued) % AUDIT_EVERY == 0 else rest, None)
        if i is None:
            queued += [*audit, *rest, *(i for i in best if auto[i])]
            break
        queued.append(i)
    place_of = {i: place for place, i in enumerate(by_score)}
    known = [i for i in reversed(by_score) if judged[i]]  # the best one last
    order: list[int] = []
    for i in queued:
        while known and audit_at[i] is None and place_of[known[-1]] < place_of[i]:
            order.append(known.pop())
        order.append(i)
    ranks = [0] * len(ids)
    for place, i in enumerate([*order, *reversed(known)]):
        ranks[i] = place
    return ranks


def _report(
    method: str, audit: Audit, s: Settings, verdicts: Mapping[str, str], ids: Sequence[str], auto: NDArray[np.bool_]
) -> dict[str, Any]:
    saved, decided = int(auto.sum()), sum(cid in verdicts for cid in ids)
    return {
        "method": method,
        "features": list(NAMES),
        "folds": FOLDS,
        "settings": asdict(s),
        "audit": asdict(audit),
        "candidates": len(ids),
        "decided": decided,
        "to_do": len(ids) - decided - saved,
        "auto_discard": saved,
        "saved_share": saved / len(ids) if ids else 0.0,
        "saved_hours": saved * PAPER_PACE / 3600,
    }


@dataclass(frozen=True)
class Evidence:
    """What is known of the candidates besides the build.

    Attributes:
        second: a table folder of Segmented by another segmenter, for its agreement with the first.
        embeddings: a Parquet file, see `features.read_embeddings`.
    """

    second: Path | None = None
    embeddings: Path | None = None


def run_triage(
    root: Path,
    settings: Settings | None = None,
    merge: Merge | None = None,
    evidence: Evidence | None = None,
    workers: int = 1,
    quiet: bool = True,
) -> Sorted:
    """Triage a build folder: reads ROOT/parse and the reviewers' logs, writes ROOT/triage.

    Raises:
        UserError: when there is no parse table, or a log or table is damaged.
    """
    s, given = settings or Settings(), evidence or Evidence()
    parts = parquet.parts(root / "parse")
    harvested = root / "harvest" / "occluders"
    occluders = sorted(harvested.glob("part-*.parquet"))
    fn = Features(str(given.second.resolve()) if given.second else "", str(harvested.resolve()) if occluders else "")
    key = {"parts": hashing.digest_files(parts), "code": code_digest("ahp_toolkit.decisions.triage.features")}
    key |= {"second": hashing.digest_files(parquet.parts(given.second)) if given.second else ""}
    key |= {"occluders": hashing.digest_files(occluders)}
    job = Job("features", root / "features", fn, {MAIN: Row}, key, shard_size=1, unit="part")
    Stage(job, [str(p) for p in parts]).run(quiet=quiet, workers=workers)
    rows = list(parquet.read_records(root / "features", Row))
    decided = settle(Decisions(root).refresh().counted(), merge or Merge()).decided
    extra = embedded([r.candidate_id for r in rows], read_embeddings(given.embeddings)) if given.embeddings else None
    made = triage(rows, _by_people(decided), s, extra)
    _write(root / FOLDER, made)
    return made


def _by_people(decided: Mapping[str, Decision]) -> dict[str, str]:
    return {cid: d.verdict for cid, d in decided.items() if not d.provisional}


def _write(folder: Path, made: Sorted) -> None:
    path = folder / "part-00000.parquet"
    files.forget_dead(path, folder / "stage.json")
    parquet.write_records(path, made.records, Triage)
    counts = {"in": len(made.records), "out": len(made.records), "auto_discard": made.report["auto_discard"]}
    mark = {"name": FOLDER, "key": made.report["settings"], "key_digest": hashing.digest_value(made.report["settings"])}
    more = {"counts": counts, "dropped": {}, "digest": hashing.digest_files([path]), "shards": 1, "report": made.report}
    files.write_json(folder / "stage.json", mark | more)


def report_of(root: Path) -> dict[str, Any] | None:
    """What the last triage of a build folder reported, or None where there was none."""
    path = root / FOLDER / "stage.json"
    return dict(files.read_json(path)["report"]) if path.exists() else None


def ordered(root: Path, new_masks: Collection[str] = ()) -> list[str]:
    """The build's candidate ids in the order of the review; without triage as the tables have them.

    Auto-discards are left out, except those with ``new_masks``: another mask was triaged. Candidates that came after
    the triage are last, in the tables' order.
    """
    ids = {
        row["candidate_id"]: None
        for part in parquet.parts(root / "parse")
        for row in parquet.read_table(part, ["candidate.candidate_id"])["candidate"].to_pylist()
    }
    if not (root / FOLDER / "stage.json").exists():
        return list(ids)
    records = sorted(parquet.read_records(root / FOLDER, Triage), key=lambda t: t.rank)
    known = {t.candidate_id for t in records}
    queued = [t.candidate_id for t in records if not t.auto_discard or t.candidate_id in new_masks]
    return [*(cid for cid in queued if cid in ids), *(cid for cid in ids if cid not in known)]


__all__ = [
    "Audit", "Evidence", "Settings", "Sorted", "Triage", "audit_of", "fold_of", "needed", "ordered", "report_of",
    "run_triage", "threshold_of", "triage", "upper_bound",
]  # fmt: skip
