"""Which mask a word is about, and which words on a candidate are merged: one rule for panel, stage, exports and status.

A candidate's first mask is the build's. A proposal (`proposals`) takes its place, and so does a mask that a reviewer
mends; the newest is the one shown. A word is about the mask that it brings, else about the one that was shown to its
speaker (`Decision.shown`). Where a word does not say (older logs, tables of other tools), a preserve is about the
newest mask that had come before it, and every other word about the first. A preserve that names a mask which nobody has
any more (the build was made anew with others) releases none: it does not count, and its speaker is asked again.

A word about a mask that a newer one has replaced, proposed or mended, is no answer: its speaker is asked again, and it
is not merged with words on the newer one. A word that only brings a mended mask decides nothing: until somebody has
decided on that mask the words from before it stand (to its speaker's own refine it is the answer), and afterwards they
are not merged with words on it. A provisional word is nobody's answer. What was said of a mask that its speaker has
taken back since is about that one, and asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.core.hashing import digest_bytes
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision, Segmented
from ahp_toolkit.decisions.log import Entry, outranks, read_entries, when

#: The note of a word that only brings a mended mask: the candidate comes back into the queue.
MENDED = "mended"
#: The note of a word that settles a disagreement: after it nobody is asked again.
SETTLED = "settled"


def digest(mask: Mask) -> str:
    """16 hex digits that tell a mask from others."""
    return digest_of(mask.height, mask.width, mask.counts)


def digest_of(height: int, width: int, counts: bytes) -> str:
    """`digest` of a mask's fields, as tables hold them."""
    return digest_bytes(f"{height} {width}".encode(), counts)[:16]


def pending(word: Decision) -> bool:
    """Whether a word only brings a mended mask: its candidate is still to be decided on."""
    return word.note == MENDED and word.verdict == "refine"


@dataclass(frozen=True, slots=True)
class Heard:
    """How many lines of a reviewer's log were on a candidate, words and retractions."""

    reviewer: str
    entries: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask that replaces a candidate's: ``segmented`` names in ``segmenter`` what made it.

    ``words`` decisions had ever been spoken on the candidate when it came, ``heard`` by whom; ``at`` is when, ISO 8601
    UTC ('' in those of before).
    """

    candidate_id: str
    segmented: Segmented
    words: int
    heard: tuple[Heard, ...] = ()
    at: str = ""


class Placed(NamedTuple):
    """A word, and how many entries of its reviewer on its candidate came before it."""

    word: Decision
    place: int

    @property
    def brings(self) -> bool:
        """Whether a mask came with it."""
        return self.word.corrected is not None and self.word.verdict != "discard"

    @property
    def about(self) -> str:
        """The digest of the mask that it says it is about; '' where it does not say."""
        mask = self.word.corrected if self.brings else None
        return digest(mask) if mask else self.word.shown


@dataclass(slots=True)
class Case:
    """One candidate: its proposals, oldest first, and every standing word on it, in the order of the logs.

    ``entries`` counts by reviewer what was ever logged, words and retractions; ``ever`` all words, taken back or not.
    ``gone`` holds by digest the masks whose words were taken back. ``first`` is the digest of the build's mask; ''
    while that has not been looked up: then no word is `lost`.
    """

    proposals: tuple[Proposal, ...] = ()
    words: list[Placed] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    ever: int = 0
    gone: dict[str, Mask] = field(default_factory=dict)
    first: str = ""

    def take(self, entry: Entry) -> None:
        """Read one entry more."""
        who = entry.reviewer
        place = self.entries.get(who, 0)
        self.entries[who] = place + 1
        if isinstance(entry, Decision):
            self.words.append(Placed(entry, place))
            self.ever += 1
            return
        mine = [i for i, w in enumerate(self.words) if w.word.reviewer == who]
        if mine:
            old = self.words.pop(mine[-1])
            if old.brings and old.word.corrected is not None:
                self.gone[old.about] = old.word.corrected

    def _spoken(self) -> list[Placed]:
        """The standing words. Panels of before logged with a refine the mended mask it was about: it brings none."""
        if not any(_carries(w.word) for w in self.words):
            return self.words
        mended = [w for w in self.words if pending(w.word)]
        return [_repeated(w) if _carries(w.word) and any(_after(w, m) for m in mended) else w for w in self.words]

    def last(self) -> dict[str, Placed]:
        """The last word of each reviewer; a final one stands whatever provisional ones came later."""
        out: dict[str, Placed] = {}
        for w in self._spoken():
            old = out.get(w.word.reviewer)
            if old is None or outranks(w.word, old.word):
                out[w.word.reviewer] = w
        return out

    def counted(self) -> list[Decision]:
        """The words to merge, by reviewer's name: final ones alone where there are any, and about the newest masks."""
        if len(self.words) <= 1:  # most candidates
            return [w.word for w in self.words if not self._lost(w.word)]
        last = [w for _, w in sorted(self.last().items())]
        words = [w for w in [w for w in last if not w.word.provisional] or last if not self._stale(w.word)]
        decided = [w.word for w in self._latest(words) if not pending(w.word)]
        if decided:
            return decided
        before = self._before(words)
        for i in reversed(range(len(self.proposals))):
            since = [w.word for w, decision in before if self._since(decision, i)]
            if since:
                return since
        return [w.word for w, _ in before]

    def _before(self, words: Sequence[Placed]) -> list[tuple[Placed, Placed]]:
        """(word that stands, its reviewer's last decision) while nobody has decided on the newest mask.

        Who brought a mask and had not wanted one stands by what they had said; without a word by nothing, unless nobody
        has said anything.
        """
        out: list[tuple[Placed, Placed]] = []
        for w in words:
            said = self._decision(w)
            if said is not None:
                out.append((w if said.word.verdict == "refine" else said, said))
        seen = {w.word.shown for w, _ in out if not pending(w.word)}
        out = [(w, said) for w, said in out if not (pending(w.word) and w.brings and w.about in seen)]
        return out or [(w, w) for w in words]

    def _decision(self, w: Placed) -> Placed | None:
        """A word itself, or the last decision of one who has only brought a mask since."""
        if not pending(w.word):
            return w
        mine = [x for x in self._spoken() if x.word.reviewer == w.word.reviewer]
        said = [x for x in mine if not (pending(x.word) or self._lost(x.word))]
        return next((x for x in reversed(said) if x.word.provisional == w.word.provisional), None)

    def answered(self) -> set[str]:
        """Who has decided on the newest mask, whoever brought it; a provisional word is no answer."""
        said = self._latest(self.last().values())
        return {w.word.reviewer for w in said if not (pending(w.word) or w.word.provisional)}

    @property
    def reopened(self) -> bool:
        """Whether words or a new mask are there, and nobody has decided on the mask shown."""
        old = any(self._withdrawn(w.word) or self._lost(w.word) for w in self.last().values())
        return bool(self.proposals or self._brought() or old) and not self.answered()

    def shown(self, first: Mask) -> Mask:
        """The newest mask: what the panel shows. ``first`` is the build's."""
        return _mask(self._brought()) or (self.proposals[-1].segmented.mask if self.proposals else first)

    def _brought(self) -> Placed | None:
        """The word that brought the newest mask; None where that one is proposed or the build's."""
        newest = len(self.proposals) - 1
        mended = [w for w in self._spoken() if w.brings and (newest < 0 or self._since(w, newest))]
        new = {w.about for w in mended if not w.word.shown}  # who was shown a mask only repeats it
        new |= {digest(p.segmented.mask) for p in self.proposals}
        return _newest([w for w in mended if not w.word.shown or w.about not in new])

    def _latest(self, words: Iterable[Placed]) -> list[Placed]:
        """Those of some words that are about the newest mask."""
        brought, newest = self._brought(), len(self.proposals) - 1
        if brought is not None:
            return [w for w in words if _on(w, brought)]
        if newest >= 0:
            return [w for w in words if self._since(w, newest)]
        return [w for w in words if not (self._withdrawn(w.word) or self._stale(w.word))]

    @property
    def lost(self) -> list[str]:
        """Who has last preserved a mask that nobody has any more; nobody while ``first`` is not known."""
        return sorted(who for who, w in self.last().items() if self._lost(w.word))

    @property
    def unsure(self) -> bool:
        """Whether it takes ``first`` to tell what a word is about."""
        return not self.first and any(self._nowhere(w.word) or w.word.shown in self.gone for w in self.words)

    def _lost(self, word: Decision) -> bool:
        return bool(self.first) and word.shown != self.first and self._nowhere(word) and word.shown not in self.gone

    def _stale(self, word: Decision) -> bool:
        """Whether a word is about a mask that nobody has, where a preserve of such a mask is asked again."""
        if not word.shown or word.shown in (self.first, *self.gone) or self.other(word.shown) is not None:
            return False
        return any(self._lost(w.word) for w in self.words)

    def _nowhere(self, word: Decision) -> bool:
        """Whether a word preserves a mask that neither it nor a standing word brings and that nobody has proposed."""
        if not word.shown or word.verdict != "preserve" or word.corrected is not None:
            return False
        return self.other(word.shown) is None

    def _withdrawn(self, word: Decision) -> bool:
        """Whether a word is about a mask that was taken back and is none of the others."""
        return word.shown in self.gone and word.shown != self.first and self.other(word.shown) is None

    def other(self, shown: str) -> Mask | None:
        """The mask of this digest that was proposed, or that a word brings."""
        masks = [p.segmented.mask for p in self.proposals]
        masks += [w.word.corrected for w in self._spoken() if w.brings and w.word.corrected is not None]
        return next((m for m in masks if digest(m) == shown), None)

    def mask(self, word: Decision, first: Mask) -> Mask:
        """The mask that a word is about. ``first`` is the build's."""
        if word.corrected is not None:
            return word.corrected
        if word.shown and word.shown == digest(first):
            return first
        return self.other(word.shown) or self.gone.get(word.shown) or self._unsaid(word, first)

    def _unsaid(self, word: Decision, first: Mask) -> Mask:
        """What a word is about that does not say so."""
        if word.provisional or word.verdict != "preserve":
            return first
        me, who = next((w for w in self.words if w.word is word), None), word.reviewer
        mended = [w for w in self._spoken() if w.brings and (w.word.reviewer == who or _earlier(w.word, word))]
        for i in reversed(range(len(self.proposals))):
            if me is not None and self._since(me, i):
                return _mask(_newest([w for w in mended if self._since(w, i)])) or self.proposals[i].segmented.mask
        return _mask(_newest(mended)) or first

    def _since(self, w: Placed, i: int) -> bool:
        """Whether a word is about the i-th proposal or a later mask."""
        if w.word.shown:
            return w.word.shown in self._digests(i)
        p = self.proposals[i]
        if p.at and w.word.at and not pending(w.word) and when(w.word.at) < when(p.at):  # taken in from elsewhere
            return False
        if p.words and not p.heard:  # proposals made before they remembered who had spoken
            return self.ever > p.words
        return w.place >= next((h.entries for h in p.heard if h.reviewer == w.word.reviewer), 0)

    def _digests(self, i: int) -> set[str]:
        """The masks from the i-th proposal on. A word that names what it was shown repeats a mask and brings none."""
        mended = (w.about for w in self._spoken() if w.brings and not w.word.shown and self._since(w, i))
        return {digest(p.segmented.mask) for p in self.proposals[i:]} | set(mended)


def _newest(mended: Iterable[Placed]) -> Placed | None:
    last = {w.word.reviewer: w for w in mended}  # of one person by order: a clock may have been set back
    return max(last.values(), key=lambda w: (when(w.word.at), w.word.reviewer), default=None)


def _earlier(a: Decision, b: Decision) -> bool:
    return when(a.at) <= when(b.at)


def _carries(word: Decision) -> bool:
    """Whether a word is a panel's refine with a mask: mending, importing and today's panel say so otherwise."""
    return word.corrected is not None and word.verdict == "refine" and word.note in ("", SETTLED) and not word.shown


def _repeated(w: Placed) -> Placed:
    return Placed(replace(w.word, corrected=None, shown=w.about), w.place)


def _after(w: Placed, mended: Placed) -> bool:
    """Whether a word carries the mask that another has mended before it."""
    same = w.word.reviewer == mended.word.reviewer
    return w.about == mended.about and (mended.place < w.place if same else _earlier(mended.word, w.word))


def _mask(w: Placed | None) -> Mask | None:
    return w.word.corrected if w else None


def _on(w: Placed, brought: Placed) -> bool:
    """Whether a word is about the mask that ``brought`` brought: as it says, else by its place or its time."""
    if w.about:
        return w.about == brought.about
    if w.word.reviewer == brought.word.reviewer:
        return w.place > brought.place
    return _earlier(brought.word, w.word)


def cases(logs: Iterable[Path], proposed: Mapping[str, tuple[Proposal, ...]]) -> dict[str, Case]:
    """candidate id -> what stands on it, of every candidate with a word or a proposal.

    Raises:
        UserError: naming the file and the line that is no decision.
    """
    out = {cid: Case(of) for cid, of in proposed.items()}
    for log in logs:
        for entry in read_entries(log):
            out.setdefault(entry.candidate_id, Case()).take(entry)
    return out
