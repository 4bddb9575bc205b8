"""How much reviewers agree: raw agreement, Cohen's and Fleiss' kappa, with bootstrap 95 % intervals by candidate.

Only candidates that two or more reviewers have decided on count. Provisional decisions never count, and neither do
decisions made in view of the others' (`independent`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.records import VERDICTS, Decision
from ahp_toolkit.decisions.state import Case

Counts = NDArray[np.int64]  # [candidates, categories]: how many reviewers chose each
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """One figure in [-1, 1] (raw: [0, 1]) with its 95 % interval; ``n`` candidates. NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int


def independent(case: Case) -> list[Decision]:
    """The final decisions on a candidate that reviewers made before they saw each other's, one a reviewer.

    One that settles a disagreement is none. They are on the current mask where anybody has decided on that one.
    """
    found = [d for d in case.counted(settled=False) if not d.provisional]
    if not case.answered():
        return found
    return [d for d in found if d.mask_digest == case.current or (case.orphan(d) and case.current == case.first)]


def by_candidate(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """candidate id -> its final decisions, sorted by id."""
    found: dict[str, list[Decision]] = {}
    for d in decisions:
        if not d.provisional:
            found.setdefault(d.candidate_id, []).append(d)
    return dict(sorted(found.items()))


def tally(decisions: Iterable[Decision]) -> tuple[list[str], Counts]:
    """(candidate ids, counts by verdict) of candidates with two or more final decisions, one a reviewer."""
    ids, rows = [], []
    for cid, of in by_candidate(decisions).items():
        if len(of) >= 2:
            ids.append(cid)
            rows.append([sum(d.verdict == v for d in of) for v in VERDICTS])
    return ids, np.asarray(rows, np.int64).reshape(-1, len(VERDICTS))


def raw(counts: Counts) -> float:
    """Share of reviewer pairs that agree, mean over candidates."""
    n = counts.sum(axis=1)
    return float(np.mean((counts * (counts - 1)).sum(axis=1) / (n * (n - 1)))) if len(counts) else float("nan")


def fleiss(counts: Counts) -> float:
    """Fleiss' kappa (1971), for any number of reviewers a candidate; NaN where chance agreement is 1."""
    if not len(counts):
        return float("nan")
    shares = counts.sum(axis=0) / counts.sum()
    chance = float((shares**2).sum())
    return (raw(counts) - chance) / (1 - chance) if chance < 1 else float("nan")


def cohen(pairs: NDArray[np.int64]) -> float:
    """Cohen's kappa (1960) of [n, 2] category indices by two reviewers; NaN where chance agreement is 1."""
    if not len(pairs):
        return float("nan")
    k = int(pairs.max()) + 1
    a, b = (np.bincount(pairs[:, i], minlength=k) / len(pairs) for i in (0, 1))
    chance = float((a * b).sum())
    return (float(np.mean(pairs[:, 0] == pairs[:, 1])) - chance) / (1 - chance) if chance < 1 else float("nan")


def interval(figure: Callable[[NDArray[np.int64]], float], rows: NDArray[np.int64], seed: int = 0) -> Agreement:
    """A figure of the rows with its percentile bootstrap interval (rows are resampled: candidates)."""
    n = len(rows)
    if n == 0:
        return Agreement(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.Generator(np.random.PCG64(seed))
    values = np.asarray([figure(rows[rng.integers(0, n, n)]) for _ in range(RESAMPLES)])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if values.size else (float("nan"), float("nan"))
    return Agreement(figure(rows), float(low), float(high), n)


def by_pair(decisions: Sequence[Decision]) -> dict[tuple[str, str], Agreement]:
    """Cohen's kappa of every two reviewers who share candidates."""
    shared: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for of in by_candidate(decisions).values():
        for a, b in combinations(sorted(of, key=lambda d: d.reviewer), 2):
            pair = VERDICTS.index(a.verdict), VERDICTS.index(b.verdict)
            shared.setdefault((a.reviewer, b.reviewer), []).append(pair)
    return {names: interval(cohen, np.asarray(rows, np.int64)) for names, rows in sorted(shared.items())}


def by_reviewer(decisions: Sequence[Decision]) -> dict[str, Agreement]:
    """Share of a reviewer's shared candidates on which the majority of the others agrees.

    Where the others have no majority (as many choose one verdict as another) the candidate does not count.
    """
    rows: dict[str, list[int]] = {}
    for of in by_candidate(decisions).values():
        for d in of if len(of) >= 2 else ():
            others = [o.verdict for o in of if o is not d]
            mine = rows.setdefault(d.reviewer, [])
            (most, n), *rest = Counter(others).most_common(2)
            if not rest or rest[0][1] < n:
                mine.append(int(most == d.verdict))
    return {r: interval(lambda x: float(x.mean()), np.asarray(v, np.int64)) for r, v in sorted(rows.items())}


def by_reason(decisions: Sequence[Decision]) -> dict[str, Agreement]:
    """For each reason: of the candidates discarded for it by somebody, the share that all discarded."""
    rows: dict[str, list[int]] = {}
    for of in by_candidate(decisions).values():
        if len(of) < 2:
            continue
        for reason in {d.reason for d in of if d.verdict == "discard" and d.reason}:
            rows.setdefault(reason, []).append(int(all(d.verdict == "discard" for d in of)))
    return {r: interval(lambda x: float(x.mean()), np.asarray(v, np.int64)) for r, v in sorted(rows.items())}


def disagreements(decisions: Iterable[Decision]) -> list[str]:
    """Ids of candidates whose reviewers do not all agree, most divided first."""
    ids, counts = tally(decisions)
    share = {i: c.max() / c.sum() for i, c in zip(ids, counts, strict=True)}
    return sorted((i for i in ids if share[i] < 1), key=lambda i: (share[i], i))
