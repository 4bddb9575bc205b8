"""How much reviewers agree: raw agreement, Cohen's and Fleiss' kappa, with bootstrap 95 % intervals by candidate.

Only candidates that two or more reviewers have decided on count; provisional decisions never do, nor does what somebody
said having seen the others' words (`unaware`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.records import VERDICTS, Decision
from ahp_toolkit.decisions.log import last_words
from ahp_toolkit.decisions.mask_history import Case, pending
from ahp_toolkit.decisions.voices import SETTLED

Counts = NDArray[np.int64]  # [candidates, categories]: how many reviewers said what
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """One figure in [-1, 1] (raw: [0, 1]) with its 95 % interval; ``n`` candidates. NaN where it is not defined."""

    value: float
    low: float
    high: float
    n: int


def unaware(case: Case) -> list[Decision]:
    """What reviewers said of a candidate's newest mask before they saw each other's words: final words, one a reviewer.

    A word that settles a disagreement is none; for one that only brings a mended mask stands what its author had said.
    """
    # first in order, a settling word hides none of its author's own; left out, the mask that it repeats might be lost
    own = replace(case, words=sorted(case.words, key=lambda w: w.word.note != SETTLED))
    said = (_decided(own, d) if pending(d) else d for d in own.counted() if d.note != SETTLED)
    words = [d for d in said if d is not None and not d.provisional]
    return words if own.answered() or not case.answered() else []


def _decided(case: Case, word: Decision) -> Decision | None:
    """What the author of a word that brings a mask last decided by themselves."""
    own = (w.word for w in reversed(case.words) if w.word.reviewer == word.reviewer)
    return next((d for d in own if not pending(d) and d.note != SETTLED), None)


def tally(decisions: Iterable[Decision]) -> tuple[list[str], Counts]:
    """(candidate ids, counts by verdict) of candidates with two or more final words."""
    ids, rows = [], []
    for cid, words in sorted(last_words(d for d in decisions if not d.provisional).items()):
        if len(words) >= 2:
            ids.append(cid)
            rows.append([sum(d.verdict == v for d in words) for v in VERDICTS])
    return ids, np.asarray(rows, np.int64).reshape(-1, len(VERDICTS))


def raw(counts: Counts) -> float:
    """Share of reviewer pairs that said the same, mean over candidates."""
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
    for words in last_words(d for d in decisions if not d.provisional).values():
        for a, b in combinations(sorted(words, key=lambda d: d.reviewer), 2):
            pair = VERDICTS.index(a.verdict), VERDICTS.index(b.verdict)
            shared.setdefault((a.reviewer, b.reviewer), []).append(pair)
    return {names: interval(cohen, np.asarray(rows, np.int64)) for names, rows in sorted(shared.items())}


def by_reviewer(decisions: Sequence[Decision]) -> dict[str, Agreement]:
    """Share of a reviewer's shared candidates on which the majority of the others said the same.

    Where the others have no majority (as many say one thing as another) the candidate does not count.
    """
    rows: dict[str, list[int]] = {}
    for words in last_words(d for d in decisions if not d.provisional).values():
        for d in words if len(words) >= 2 else ():
            others = [o.verdict for o in words if o is not d]
            mine = rows.setdefault(d.reviewer, [])
            (most, n), *rest = Counter(others).most_common(2)
            if not rest or rest[0][1] < n:
                mine.append(int(most == d.verdict))
    return {r: interval(lambda x: float(x.mean()), np.asarray(v, np.int64)) for r, v in sorted(rows.items())}


def by_reason(decisions: Sequence[Decision]) -> dict[str, Agreement]:
    """For each reason: of the candidates discarded for it by somebody, the share that all discarded."""
    rows: dict[str, list[int]] = {}
    for words in last_words(d for d in decisions if not d.provisional).values():
        if len(words) < 2:
            continue
        for reason in {d.reason for d in words if d.verdict == "discard" and d.reason}:
            rows.setdefault(reason, []).append(int(all(d.verdict == "discard" for d in words)))
    return {r: interval(lambda x: float(x.mean()), np.asarray(v, np.int64)) for r, v in sorted(rows.items())}


def disagreements(decisions: Iterable[Decision]) -> list[str]:
    """Ids of candidates whose reviewers do not all say the same, most divided first."""
    ids, counts = tally(decisions)
    share = {i: c.max() / c.sum() for i, c in zip(ids, counts, strict=True)}
    return sorted((i for i in ids if share[i] < 1), key=lambda i: (share[i], i))
