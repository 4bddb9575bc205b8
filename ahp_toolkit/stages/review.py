"""STAGE review: Segmented + Decisions -> Human, split by the hash of its photo; the rest Dropped with the reason.

Two humans of one photo never fall into two splits, and neither do two files of one photograph: the split follows
``ImageRef.photo``. Photos are ordered by the hash of that key; the first give val, the next test, the rest train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.closing import Closing
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision, Dropped, Human, Occluder, Segmented
from ahp_toolkit.decisions.candidates import TRIAGE, auto_discarded, mask_digest_at
from ahp_toolkit.decisions.features import things_by_photo
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.proposals import read_all
from ahp_toolkit.decisions.state import Case, read_cases
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, digest_of
from ahp_toolkit.stages.scenes import read_scenes
from ahp_toolkit.storage import parquet

STAGE = "review"
#: A rule that decides on a person by the things in the photo (None: it does not look at them); None: no decision.
Rule = Callable[[Segmented, Sequence[Occluder] | None], Decision | None]


@dataclass(frozen=True)
class SplitSizes:
    """Humans wanted in val and test (spec §1: 297 and 56), each at most its share of all.

    ``fold`` (k, n), k from 1: cross-validation over the photos instead; val is the k-th of n parts, test is empty.
    """

    val: int = 297
    test: int = 56
    max_val: float = 0.2
    max_test: float = 0.1
    fold: tuple[int, int] | None = None


@dataclass(frozen=True)
class Thresholds:
    """Where the hash of a photo falls: [start, val) val, [val, test) test, all else train."""

    val: float
    test: float
    start: float = 0.0

    def split(self, photo: str) -> str:
        """The split of a photo key: the same on every machine, for humans and occluders alike."""
        u = hashing.photo_hash(photo)
        if not self.start <= u < self.test:
            return "train"
        return "val" if u < self.val else "test"


def thresholds(photos: Iterable[str], sizes: SplitSizes) -> Thresholds:
    """Cut the photos (one key a preserved human) so that val and test get the requested numbers of humans.

    Only the photos of the lowest hashes are held: as many as val and test can use, whatever the number of humans.
    """
    if sizes.fold is not None:
        k, n = sizes.fold
        return Thresholds(k / n, k / n, (k - 1) / n)
    enough = sizes.val + sizes.test + 2
    per_hash: Counter[float] = Counter()
    total, bound = 0, 1.0
    for u in map(hashing.photo_hash, photos):
        total += 1
        if u <= bound:
            per_hash[u] += 1
        if len(per_hash) > 4 * enough:
            per_hash = Counter({u: per_hash[u] for u in sorted(per_hash)[:enough]})
            bound = max(per_hash)
    want_val = min(sizes.val, int(total * sizes.max_val))
    want_test = min(sizes.test, int(total * sizes.max_test))
    ordered = sorted(per_hash)
    val, i = _cut(ordered, 0, per_hash, want_val)
    test, _ = _cut(ordered, i, per_hash, want_test)
    return Thresholds(val, max(val, test))


def _cut(ordered: list[float], start: int, per_hash: Counter[float], want: int) -> tuple[float, int]:
    got, i = 0, start
    while i < len(ordered) and got < want:
        got += per_hash[ordered[i]]
        i += 1
    low = ordered[i - 1] if i else 0.0
    return ((low + ordered[i]) / 2 if i < len(ordered) else 1.0) if i else 0.0, i


@dataclass(frozen=True)
class Decide:
    """The stage function that applies a rule to each segmented human. Items: paths of Segmented parts.

    ``occluders`` is the harvest's folder of things by photo, which the rule may look at, or ''.
    """

    rule: Rule
    occluders: str = ""

    def __call__(self, items: Sequence[str]) -> Output:
        """One part: a Decision for each human that the rule decides on."""
        out = Output({MAIN: []})
        for path in items:
            things = things_by_photo(Path(self.occluders) / Path(path).name) if self.occluders else None
            for s in parquet.read_records(Path(path), Segmented):
                others = None if things is None else things.get(s.candidate.image.image_id, [])
                decision = self.rule(s, others)
                if decision is not None:
                    out.tables[MAIN].append(decision)
                    out.counts[decision.verdict] += 1
        return out


@cache
def _cases(logs: tuple[str, ...], refine: str) -> dict[str, Case]:
    return read_cases(map(Path, logs), read_all(Path(refine)) if refine else {})


@cache
def _scenes(path: str) -> dict[str, str]:
    """Scene by image id: of a user's file, or of the table of `stages.scenes`."""
    if not path:
        return {}
    if not Path(path).is_dir():
        return read_scenes(Path(path))
    rows = (row for p in parquet.parts(Path(path)) for row in parquet.read_table(p).to_pylist())
    return {row["image_id"]: row["scene"] for row in rows}


@cache
def _unseen(triage: str) -> frozenset[str]:
    return auto_discarded(Path(triage)) if triage else frozenset()


def forget() -> None:
    """Forget the logs, proposals and triage that this process has read: they may have grown since."""
    for known in (_cases, _scenes, _unseen):
        known.cache_clear()


@dataclass(frozen=True)
class Review:
    """The stage function. Items: (path of a Segmented part, path of the Decision part made for it, or '').

    ``logs`` are decision files of people, who overrule the rule. ``scenes`` is a file or table of scenes, or ''.
    ``merge`` makes one decision of several. ``refine`` is the folder of proposed masks, or ''. ``triage`` is the
    triage's folder, or '': its discards count until people decide. ``closing`` closes the holes of preserved masks.
    """

    cut: Thresholds
    logs: tuple[str, ...] = ()
    scenes: str = ""
    merge: Merge = field(default_factory=Merge)
    refine: str = ""
    triage: str = ""
    closing: Closing | None = None

    def __call__(self, items: Sequence[tuple[str, str]]) -> Output:
        """One part: the preserved and refined humans, all decisions, the rest dropped."""
        out = Output({MAIN: [], "decisions": []})
        for segmented, ruled in items:
            rule = {d.candidate_id: d for d in parquet.read_records(Path(ruled), Decision)} if ruled else {}
            for s in parquet.read_records(Path(segmented), Segmented):
                self._one(s, self.decisions_on(s.candidate.candidate_id, rule, partial(getattr, s.mask, "digest")), out)
        return out

    def decisions_on(
        self, candidate_id: str, rule: Mapping[str, Decision], digest: Callable[[], str]
    ) -> list[Decision]:
        """The decisions that count: people's if there are any, else the triage's discard, else the rule's.

        A rule that knows the truth (its decision is not provisional) counts as people do. ``digest`` gives that of the
        build's own mask.
        """
        case = self._case(candidate_id)
        if case.entries:
            case.first = digest()
        found = case.counted()
        if not found and candidate_id in rule:
            found = [rule[candidate_id]]
        if any(not d.provisional for d in found) or candidate_id not in _unseen(self.triage):
            return found
        return [Decision(candidate_id, "discard", TRIAGE, digest(), TRIAGE, provisional=True)]

    def _case(self, candidate_id: str) -> Case:
        return _cases(self.logs, self.refine).get(candidate_id, Case())

    def _one(self, s: Segmented, decisions: list[Decision], out: Output) -> None:
        source, cid = s.candidate.image.source, s.candidate.candidate_id
        if not decisions:
            lost = ", ".join(self._case(cid).orphaned)
            why = f"preserved by {lost} with a mask that the candidate no longer has" if lost else ""
            why = why or "nobody has decided on it yet"
            out.dropped.append(Dropped(cid, STAGE, "undecided", why, source))
            return
        out.tables["decisions"].extend(decisions)
        d = self.merge(decisions)
        if d is None:
            detail = ", ".join(f"{x.reviewer}: {x.verdict}" for x in decisions)
            several = len({x.verdict for x in decisions}) > 1
            out.dropped.append(Dropped(cid, STAGE, "disagreed" if several else "undecided", detail, source))
            return
        carried = d.corrected if d.verdict != "refine" else None
        mask = carried or self._case(cid).mask_of(d, s.mask)
        frame = (s.mask.height, s.mask.width)
        if d.verdict == "discard" or (mask.height, mask.width) != frame or mask.area == 0:
            reason = (d.reason or "discard") if d.verdict == "discard" else "corrected_mask_unusable"
            out.dropped.append(Dropped(cid, STAGE, reason, f"{d.verdict} by {d.reviewer}", source))
            if d.reviewer == TRIAGE:
                out.counts[f"{TRIAGE}/{source}"] += 1
            return
        if self.closing is not None and d.verdict == "preserve":
            mask, added = self.closing(mask)
            out.counts[f"closed/{source}"] += added > 0
            out.counts[f"closed_px/{source}"] += added
        out.counts[f"{d.verdict}/{source}"] += 1
        out.tables[MAIN].append(self._human(s, d, decisions, mask))

    def _human(self, s: Segmented, d: Decision, all_of: list[Decision], mask: Mask) -> Human:
        image = s.candidate.image
        return Human(
            human_id=s.candidate.candidate_id,
            image=image,
            box=mask.box,
            mask=mask,
            parsing=s.parsing,
            scene=_scenes(self.scenes).get(image.image_id, ""),
            split=self.cut.split(image.photo or image.image_id),
            reviewers=tuple(sorted({x.reviewer for x in all_of})),
            verdict=d.verdict,
            provisional=d.provisional,
        )


@dataclass(frozen=True)
class Given:
    """What people and rules gave a build: logs of decisions, scenes of photos, the merge rule.

    ``scenes`` is a user's file, the folder of a stage's table, or None; ``ruled`` names what decided by itself, or '';
    ``closing`` closes the holes of preserved masks.
    """

    logs: tuple[Path, ...]
    scenes: Path | None
    merge: Merge
    ruled: str
    closing: Closing | None = None


def decide_stage(out: Path, rule: Rule, opinion: Path | None = None) -> Stage:
    """Decisions by a rule on everybody, into ``out``/decide.

    Args:
        opinion: the file of a learned rule, which looks at the things in a photo too.
    """
    key = {"input": digest_of(out / "parse"), "code": code_digest(__name__, rule.__module__)}
    key |= {"opinion": hashing.digest_file(opinion) if opinion is not None else ""}
    things = str((out / "harvest" / "occluders").resolve()) if opinion is not None else ""
    job = Job("decide", out / "decide", Decide(rule, things), {MAIN: Decision}, key, shard_size=1, unit="part")
    return Stage(job, [str(p) for p in parquet.parts(out / "parse")])


def stage(out: Path, given: Given, sizes: SplitSizes) -> Stage:
    """The humans of a build and their splits, into ``out``/review."""
    forget()
    parts = [str(p) for p in parquet.parts(out / "parse")]
    ruled = [str(p) for p in parquet.parts(out / "decide")] if given.ruled else [""] * len(parts)
    logs = tuple(map(str, given.logs))
    triage = sorted((out / "triage").glob("part-*.parquet"))
    refine = sorted((out / "refine").glob("part-*.parquet"))
    scenes = given.scenes.resolve() if given.scenes else None
    fn = Review(
        Thresholds(0.0, 0.0),
        logs,
        str(scenes or ""),
        given.merge,
        str((out / "refine").resolve()) if refine else "",
        str((out / "triage").resolve()) if triage else "",
        given.closing,
    )
    cut = thresholds(preserved_photos(parts, ruled, fn), sizes)
    key: dict[str, Any] = {"input": digest_of(out / "parse"), "code": code_digest(__name__), "mode": given.ruled}
    key |= {"decide": digest_of(out / "decide") if given.ruled else ""}
    key |= {"cut": asdict(cut), "logs": [hashing.digest_file(p) for p in given.logs], "merge": asdict(given.merge)}
    key |= {"scenes": _scenes_digest(scenes), "refine": hashing.digest_files(refine)}
    key |= {"triage": hashing.digest_files(triage), "closing": asdict(given.closing) if given.closing else {}}
    tables = {MAIN: Human, "decisions": Decision}
    job = Job(STAGE, out / "review", replace(fn, cut=cut), tables, key, shard_size=1, unit="part")
    return Stage(job, list(zip(parts, ruled, strict=True)))


def _scenes_digest(scenes: Path | None) -> str:
    if scenes is None:
        return ""
    return digest_of(scenes) if scenes.is_dir() else hashing.digest_file(scenes)


def preserved_photos(parts: Sequence[str], ruled: Sequence[str], fn: Review) -> Iterator[str]:
    """The photo key of every human that is preserved, read from a few columns only."""
    columns = ["candidate.candidate_id", "candidate.image.photo", "candidate.image.image_id"]
    for part, decisions in zip(parts, ruled, strict=True):
        rule = {d.candidate_id: d for d in parquet.read_records(Path(decisions), Decision)} if decisions else {}
        digest = mask_digest_at(Path(part))
        for i, row in enumerate(parquet.read_table(Path(part), columns).to_pylist()):
            c = row["candidate"]
            decision = fn.merge(fn.decisions_on(c["candidate_id"], rule, partial(digest, i)))
            if decision is not None and decision.verdict == "preserve":
                yield c["image"]["photo"] or c["image"]["image_id"]
