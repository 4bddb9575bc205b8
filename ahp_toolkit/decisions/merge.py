"""Several reviewers, one decision: the rules that merge their decisions on one candidate.

People's decisions come before those of a rule (`state.Case.counted`). What no rule settles stays undecided and is
listed; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.log import SETTLED, when

RULES = ("majority", "unanimous", "senior")
#: From strict to lenient: of verdicts with as many reviewers the stricter one wins.
STRICT = ("discard", "refine", "preserve")


@dataclass(frozen=True)
class Merge:
    """How the decisions of several reviewers become one. A decision that settles a disagreement wins in any case.

    Attributes:
        rule: ``majority``: the verdict of most, of equals the stricter. ``unanimous``: only what all decide alike.
            ``senior``: the decision of the first of ``seniors`` who has made one, else the majority of the others.
        seniors: reviewers by name, the most senior first; only for ``senior``.
        least: reviewers who must have decided, or else the candidate is undecided (a senior's decision is enough).

    Raises:
        UserError: when the rule is unknown, has no seniors, or has seniors that it never uses.
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

    def __call__(self, decisions: Sequence[Decision]) -> Decision | None:
        """The one decision that several on one candidate become; None: undecided."""
        if not any(not d.provisional for d in decisions):
            return majority(decisions) if decisions else None
        decisions = [d for d in decisions if not d.provisional]
        settled = [d for d in decisions if d.note == SETTLED]
        if settled:
            return newest_of(settled)
        for name in self.seniors:
            own = [d for d in decisions if d.reviewer == name]
            if own:
                return own[-1]
        if len({d.reviewer for d in decisions}) < self.least:
            return None
        if self.rule == "unanimous" and len({d.verdict for d in decisions}) > 1:
            return None
        return majority(decisions)


def newest_of(decisions: Sequence[Decision]) -> Decision:
    """The newest by ``at``; of one time the last."""
    return max(enumerate(decisions), key=lambda x: (when(x[1].at), x[0]))[1]


def majority(decisions: Sequence[Decision]) -> Decision:
    """The newest decision with the verdict of most, of equals the stricter."""
    verdict = max(STRICT, key=lambda v: sum(d.verdict == v for d in decisions))
    return newest_of([d for d in decisions if d.verdict == verdict])


@dataclass(frozen=True)
class Settled:
    """What a merge rule makes of all decisions; ids sorted.

    ``decided`` is the decision on each candidate; ``disagreed`` have several verdicts and no decision, ``waiting`` too
    few reviewers yet.
    """

    decided: Mapping[str, Decision] = field(default_factory=dict)
    disagreed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def settle(decisions: Mapping[str, Sequence[Decision]], merge: Merge) -> Settled:
    """Merge the decisions that count (`state.Decisions.counted`) on every candidate."""
    decided: dict[str, Decision] = {}
    disagreed, waiting = [], []
    for cid in sorted(decisions):
        d = merge(decisions[cid])
        if d is not None:
            decided[cid] = d
        elif len({x.verdict for x in decisions[cid]}) > 1:
            disagreed.append(cid)
        else:
            waiting.append(cid)
    return Settled(decided, tuple(disagreed), tuple(waiting))
