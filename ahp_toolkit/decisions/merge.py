"""Several reviewers, one decision: rules that merge their last words, and where their logs lie.

People's words count before those of a rule (`about.Case.counted`). What a rule cannot settle stays undecided and is
listed; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.jsonl import logs
from ahp_toolkit.decisions.log import FOLDER, majority, read_log, when
from ahp_toolkit.decisions.mask_history import SETTLED
from ahp_toolkit.decisions.proposals import known

RULES = ("majority", "unanimous", "senior")


@dataclass(frozen=True)
class Merge:
    """How the words of several reviewers become one decision. A word that settles a disagreement stands in any case.

    Attributes:
        rule: ``majority``: the verdict of most, of equals the stricter. ``unanimous``: only what all say alike.
            ``senior``: the word of the first of ``seniors`` who has spoken, else the majority of the others.
        seniors: reviewers by name, the most senior first; only for ``senior``.
        least: reviewers who must have spoken, or else the candidate is undecided (a senior's word is enough).

    Raises:
        UserError: when the rule is unknown, has no seniors, or has seniors that it never asks.
    """

    rule: str = "majority"
    seniors: tuple[str, ...] = ()
    least: int = 1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"merge rule: expected one of {', '.join(RULES)}, got {self.rule!r}")
        if (self.rule == "senior") != bool(self.seniors):
            raise UserError("merge rule senior: expected the seniors' names with it (--senior NAME), and only with it")
        if self.least < 1:
            raise UserError(f"merge: expected 1 or more reviewers a candidate, got {self.least}")

    def __call__(self, words: Sequence[Decision]) -> Decision | None:
        """The decision that stands for the last words on one candidate; None: undecided."""
        if any(not w.provisional for w in words):
            words = [w for w in words if not w.provisional]
        elif words:
            return majority(words)
        settled = [w for w in words if w.note == SETTLED]
        if settled:
            return max(settled, key=lambda w: when(w.at))
        for name in self.seniors:
            said = [w for w in words if w.reviewer == name]
            if said:
                return said[-1]
        if len({w.reviewer for w in words}) < self.least:
            return None
        if self.rule == "unanimous" and len({w.verdict for w in words}) > 1:
            return None
        return majority(words)


def outcome(decision: Decision) -> str:
    """The verdict that a decision has in effect: one that brings a corrected mask preserves, except a discard."""
    mended = decision.corrected is not None and decision.verdict == "refine"
    return "preserve" if mended else decision.verdict


@dataclass(frozen=True)
class Settled:
    """What a merge rule makes of all words; ids sorted.

    ``decided`` is the decision that stands for each candidate; ``disagreed`` have several verdicts and no decision,
    ``waiting`` too few reviewers yet.
    """

    decided: Mapping[str, Decision] = field(default_factory=dict)
    disagreed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def settle(words: Mapping[str, Sequence[Decision]], merge: Merge) -> Settled:
    """Merge the words that count (`about.Case.counted`) on every candidate."""
    decided: dict[str, Decision] = {}
    disagreed, waiting = [], []
    for cid in sorted(words):
        d = merge(words[cid])
        if d is not None:
            decided[cid] = d
        elif len({w.verdict for w in words[cid]}) > 1:
            disagreed.append(cid)
        else:
            waiting.append(cid)
    return Settled(decided, tuple(disagreed), tuple(waiting))


def logs_of(root: Path) -> tuple[Path, ...]:
    """All reviewers' logs of a build folder, sorted by name.

    Raises:
        UserError: when one is gone.
    """
    return tuple(logs(root / FOLDER))


def read_logs(logs: Iterable[Path]) -> Iterator[Decision]:
    """The words of several logs, log after log.

    Raises:
        UserError: naming the file and the line that is no decision.
    """
    return chain.from_iterable(read_log(log) for log in logs)


def words_of(root: Path) -> dict[str, list[Decision]]:
    """candidate id -> the words to merge, one a reviewer, from all logs of a build folder."""
    return {cid: case.counted() for cid, case in known(root).items() if case.words}
