"""Editors and voters on real composites (paper §5.1): their words, and the test samples that all voters passed.

Words are lines of ROOT/compose/words.jsonl, in the order they were spoken. An editor picks, nudges or rejects; others
vote on exactly what the editor left: a vote names the version it saw, and a later nudge makes it void. An edit names
the version of the proposal as it was made, and counts for no other (lines without one are from before there was any).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ahp_toolkit.build.splits import BESIDE
from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_image, square_around
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Dropped, Human, Occluder, Placement, Sample
from ahp_toolkit.decisions import jsonl
from ahp_toolkit.decisions.composites import FOLDER, STAGE, Composite
from ahp_toolkit.decisions.log import now
from ahp_toolkit.occlusion.densities import Target, parse
from ahp_toolkit.occlusion.place import Placed, Settings, ratio_of, scaled_size
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Result, run
from ahp_toolkit.stages.synthesize import Initial, Synth
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.images import ImageError, Rgb
from ahp_toolkit.storage.lock import waiting

EDITS, VOTES, UNDO = ("pick", "nudge", "reject"), ("pass", "fail"), "undo"
ACTIONS = (*EDITS, *VOTES, UNDO)
MODES = ("edit", "vote", "done")
VOTERS = 2
Mode = Literal["edit", "vote", "done"]


@dataclass(frozen=True)
class View:
    """A proposal as it stands: ``composite`` with the editor's placement, its ``version``, and what was said.

    ``status`` is open, picked or rejected; ``votes`` are those on this version; ``editors`` have had a hand in it.
    """

    composite: Composite
    version: str
    status: str = "open"
    editor: str = ""
    editors: frozenset[str] = frozenset()
    votes: dict[str, bool] = field(default_factory=dict)

    def passed(self, voters: int = VOTERS) -> bool:
        """Whether enough people who did not edit it have voted, and all of them passed it."""
        return self.status == "picked" and len(self.votes) >= voters and all(self.votes.values())


def log_of(root: Path) -> Path:
    """The log of everybody's words."""
    return root / FOLDER / "words.jsonl"


def turn(root: Path) -> AbstractContextManager[None]:
    """One at a time: a word is checked and logged, or the table of proposals gives way to another. Waits."""
    return waiting(root / FOLDER / ".lock")


def begun(root: Path) -> bool:
    """Whether anybody has had a word on composites."""
    return any(jsonl.read(log_of(root)))


def voters_of(root: Path) -> int:
    """How many voters a composite needs: as many as were asked for last (`keep_voters`), else `VOTERS`.

    Raises:
        UserError: when what was kept is damaged.
    """
    path = _voters(root)
    if not path.exists():
        return VOTERS
    said = files.read_json(path)
    n = said.get("voters") if isinstance(said, dict) else None
    if not isinstance(n, int) or n < 1:
        raise UserError(f"{path}: expected a number of voters; give ahp review compose --voters again")
    return n


def keep_voters(root: Path, voters: int) -> None:
    """Keep how many voters a composite needs, so that ``ahp build`` asks for as many."""
    files.forget_dead(_voters(root))
    files.write_json(_voters(root), {"voters": voters})


def _voters(root: Path) -> Path:
    return root / FOLDER / "voters.json"


def read_composites(root: Path) -> dict[str, Composite]:
    """proposal id -> proposal.

    Raises:
        UserError: when nothing was proposed yet.
    """
    folder = root / FOLDER / "proposals"
    if not any(folder.glob("part-*.parquet")):
        raise UserError(f"{root}: no composites are proposed yet; run ahp review compose --root {root} first")
    return _composites(str(folder), str(hashing.stamp(parquet.parts(folder))))


@lru_cache(maxsize=4)
def _composites(folder: str, _stamp: str) -> dict[str, Composite]:
    return {c.proposal_id: c for c in parquet.read_records(Path(folder), Composite)}


def version_of(c: Composite) -> str:
    """Names a proposal's exact placement."""
    return hashing.digest_value([c.proposal_id, asdict(c.placement)])[:16]


def views(root: Path) -> dict[str, View]:
    """proposal id -> how it stands after all words."""
    return _views(root, read_composites(root))


def standing(root: Path, among: Mapping[str, Composite]) -> list[Composite]:
    """The proposals as they were made, ``among`` these, on which somebody's word stands; sorted by id."""
    return [among[pid] for pid, v in sorted(_views(root, among).items()) if v.editors or v.votes]


def _views(root: Path, among: Mapping[str, Composite]) -> dict[str, View]:
    said: dict[str, list[dict[str, Any]]] = {}
    for word in jsonl.read(log_of(root)):
        words = said.setdefault(str(word.get("proposal_id")), [])
        if word.get("action") == UNDO:
            mine = [i for i, w in enumerate(words) if w.get("reviewer") == word.get("reviewer")]
            if mine:
                del words[mine[-1]]
        else:
            words.append(word)
    return {pid: _view(c, said.get(pid, ())) for pid, c in among.items()}


def _view(c: Composite, words: Iterable[dict[str, Any]]) -> View:
    made = version_of(c)
    view = View(c, made)
    for w in words:
        action, who = w["action"], str(w["reviewer"])
        if action in EDITS:
            if w.get("version", made) != made:
                continue  # said of another placement
            moved = nudged(c, w["dx"], w["dy"], w["scale"]) if action == "nudge" else c
            status = "rejected" if action == "reject" else "picked"
            votes = view.votes if version_of(moved) == view.version else {}
            votes = {v: ok for v, ok in votes.items() if v != who}
            view = View(moved, version_of(moved), status, who, view.editors | {who}, votes)
        elif w.get("version") == view.version and who not in view.editors:
            view = replace(view, votes=view.votes | {who: action == "pass"})
    return view


def nudged(c: Composite, dx: float, dy: float, scale: float) -> Composite:
    """A proposal moved by (dx, dy) px of its photo and resized by a factor about the middle of its ground line."""
    p = c.placement
    w, h = (int(v) for v in (c.occluder.mask.box.width, c.occluder.mask.box.height))
    old, factor = scaled_size(w, h, p.scale), round(p.scale * scale * 4096) / 4096
    new = scaled_size(w, h, factor)
    x, y = p.dx + (old[0] - new[0]) / 2 + dx, p.dy + old[1] - new[1] + dy
    placement = replace(p, dx=math.floor(x + 0.5), dy=math.floor(y + 0.5), scale=factor)
    return replace(c, placement=placement, ratio=_ratio(c, placement), ground=c.ground + dy)


def _ratio(c: Composite, placement: Placement) -> float:
    return _ratio_of(c.human.mask, c.occluder.mask, placement)


@lru_cache(maxsize=512)
def _ratio_of(human: Mask, occluder: Mask, placement: Placement) -> float:
    x0, y0, x1, y1 = occluder.box.pixels()
    return ratio_of(human.decode(), [occluder.decode()[y0:y1, x0:x1]], [placement])


def proposals(root: Path, mode: Mode, reviewer: str, n: int = 8) -> list[View]:
    """The next ``n`` proposals for a reviewer.

    ``edit``: nobody has had a word on them; ``vote``: picked by others, not yet voted on; ``done``: passed.

    Raises:
        UserError: for another mode, or when nothing was proposed yet.
    """
    if mode not in MODES:
        raise UserError(f"compose: expected one of {', '.join(MODES)}, got {mode!r}")
    voters = voters_of(root)
    wanted = {
        "edit": lambda v: v.status == "open",
        "vote": lambda v: v.status == "picked" and reviewer not in v.editors and reviewer not in v.votes,
        "done": lambda v: v.passed(voters),
    }[mode]
    return [v for v in views(root).values() if wanted(v)][: max(0, n)]


def act(
    root: Path,
    reviewer: str,
    proposal_id: str,
    action: str,
    dx: float = 0.0,
    dy: float = 0.0,
    scale: float = 1.0,
    version: str = "",
) -> View:
    """Say a word; it is on the disk when this returns. Returns how the proposal stands then.

    Args:
        dx, dy, scale: of a nudge: from the proposal as it was made, px of its photo and a factor.
        version: of a vote: what the voter saw; of an edit: the proposal, as it was made, that the editor saw; '': as it
            is now.

    Raises:
        UserError: when the word makes no sense, an editor votes on their own work, or saw what was proposed anew since.
    """
    from annotation.session.session import check_name

    check_name(reviewer)
    read_composites(root)  # where there are none, nothing is made either
    with turn(root):
        jsonl.append(log_of(root), _word(root, reviewer, proposal_id, action, (dx, dy, scale), version))
        return views(root)[proposal_id]


def _word(
    root: Path, reviewer: str, proposal_id: str, action: str, moved: tuple[float, float, float], version: str
) -> dict[str, Any]:
    """A word as the log has it; see `act`."""
    view = views(root).get(proposal_id)
    if view is None:
        raise UserError(f"{proposal_id}: no such proposal in {root}")
    if action not in ACTIONS:
        raise UserError(f"compose: expected one of {', '.join(ACTIONS)}, got {action!r}")
    if action in VOTES:
        _check_vote(view, reviewer)
    proposal = read_composites(root)[proposal_id]
    if action in EDITS and version not in ("", version_of(proposal)):
        raise UserError(f"{proposal_id}: it was proposed anew since you saw it; look again")
    word: dict[str, Any] = {"proposal_id": proposal_id, "reviewer": reviewer, "action": action, "at": now()}
    if action == "nudge":
        _check_nudge(proposal, *moved)
        word |= dict(zip(("dx", "dy", "scale"), map(float, moved), strict=True))
    if action in VOTES:
        word["version"] = version or view.version
    if action in EDITS:
        word["version"] = version_of(proposal)
    return word


def _check_vote(view: View, reviewer: str) -> None:
    pid = view.composite.proposal_id
    if view.status != "picked":
        raise UserError(f"{pid}: nobody has picked it, so there is nothing to vote on")
    if reviewer in view.editors:
        raise UserError(f"{pid}: {reviewer} has edited it; somebody else must vote")


def _check_nudge(c: Composite, dx: float, dy: float, scale: float) -> None:
    if not all(map(math.isfinite, (dx, dy, scale))) or not 0.1 <= scale <= 10 or max(abs(dx), abs(dy)) > 1e5:
        raise UserError(f"{c.proposal_id}: expected a nudge in px and a factor of 0.1 to 10, got {dx}, {dy}, {scale}")
    if nudged(c, dx, dy, scale).ratio in (0.0, 1.0):
        raise UserError(f"{c.proposal_id}: there it hides nothing of the person, or all; move it less")


def preview(root: Path, composite: Composite, size: int = 512) -> Rgb:
    """RGB uint8 [size, size, 3]: the composite around its human, as the sample would look.

    Raises:
        ImageError: when a photo cannot be read.
    """
    render = _renderer(str(root))
    photo = render.photo(composite.human.image)
    pasted = render.paste(photo, composite.human.mask, [(composite.occluder, composite.placement)])
    return np.asarray(crop_image(pasted.image, square_around(composite.human.mask.box, 1.8), size), np.uint8)


@lru_cache(maxsize=2)
def _renderer(root: str) -> Renderer:
    return Renderer(roots_of(Path(root)))


def roots_of(root: Path) -> dict[str, str]:
    """Data root by source, from ``build.json``.

    Raises:
        UserError: when the folder is no build.
    """
    return {str(k): str(v) for k, v in dict(files.read_json(root / "build.json").get("roots", {})).items()}


@dataclass(frozen=True)
class Freeze:
    """The stage function: passed composites -> frozen Samples, with the humans and occluders they need.

    ``gone``: proposals whose human is not as it was, and preserved, in the test split any more.
    """

    initial: Initial
    seed: int
    roots: dict[str, str]
    gone: frozenset[str] = frozenset()

    def __call__(self, items: Sequence[Composite]) -> Output:
        """One shard; a composite whose photos cannot be read is dropped."""
        out, render = Output({MAIN: [], "humans": [], "occluders": []}), Renderer(self.roots)
        for c in items:
            name, source = f"test/{c.proposal_id}", c.human.image.source
            if c.proposal_id in self.gone:
                detail = "the human is no preserved one of the test split, or has another mask now; propose anew"
                out.dropped.append(Dropped(name, STAGE, "human_changed", detail, source))
                continue
            try:
                out.tables[MAIN].append(self._sample(c, render))
            except ImageError as e:
                out.dropped.append(Dropped(name, STAGE, f"image_{e.reason}", str(e), source))
                continue
            if c.human not in out.tables["humans"]:
                out.tables["humans"].append(c.human)
            out.tables["occluders"].append(c.occluder)
        out.saw(render.missing, render.there)
        return out

    def _sample(self, c: Composite, render: Renderer) -> Sample:
        density = parse("val")
        pasted = render.paste(render.photo(c.human.image), c.human.mask, [(c.occluder, c.placement)])
        sample_id = f"test/{c.proposal_id}"
        place = density.bin_of(pasted.ratio)
        target = Target(-1 if place is None else place, 0.0, 1.0)  # -1: in none of val's bins, e.g. 0.25
        synth = Synth("test", density, Settings(), self.initial, self.seed, "", self.roots)
        seed = hashing.seed_of(self.seed, sample_id)
        made = synth.sample(c.human, sample_id, seed, target, Placed(c.placement, pasted.ratio), pasted)
        return replace(made, kind="composite")


def passed(root: Path, voters: int | None = None) -> list[Composite]:
    """The composites that all voters passed, sorted by id; ``voters``: how many must have voted (`voters_of`)."""
    least = voters or voters_of(root)
    return [v.composite for _, v in sorted(views(root).items()) if v.passed(least)]


def frozen_by(root: Path) -> tuple[Initial, int]:
    """What makes the initial masks of a build's splits, and its seed, from ``build.json``.

    Raises:
        UserError: when the folder is no build.
    """
    said, plain = files.read_json(root / "build.json"), Initial()
    o = said.get("options", {})
    maker, weights = o.get("initial", plain.maker), o.get("initial_weights")
    return Initial(maker, weights, o.get("initial_iou", plain.iou), o.get("device", plain.device)), said.get("seed", 0)


def write_test(
    root: Path, voters: int | None = None, initial: Initial | None = None, seed: int | None = None
) -> Result:
    """Write ROOT/splits/test: the passed composites and nothing else.

    Args:
        voters: how many must have voted, kept for whoever writes it later; None: as many as were kept.
        initial: what makes the initial masks; None: what makes the build's, with its ``seed``.

    Raises:
        UserError: when none has passed.
    """
    found = passed(root, voters)
    if not found:
        n = voters or voters_of(root)
        raise UserError(f"{root}: no composite has passed {n} voters yet; vote first (ahp review --root {root})")
    if voters is not None:
        keep_voters(root, voters)
    own, own_seed = frozen_by(root)
    initial, seed = initial or own, own_seed if seed is None else seed
    people = (h for h in parquet.read_records(root / "review", Human) if h.split == "test" and h.verdict == "preserve")
    now_in = {h.human_id: h.mask for h in people}
    gone = frozenset(c.proposal_id for c in found if now_in.get(c.human.human_id) != c.human.mask)
    fn = Freeze(initial, seed, roots_of(root), gone)
    key = {
        "composites": [hashing.digest_value(repr(c)) for c in found],  # masks too: a version is of the placement alone
        "gone": sorted(gone),
        "initial": fn.initial.key(),
        "seed": seed,
        "code": code_digest(__name__, *fn.initial.modules()),
    }
    tables = {MAIN: Sample, "humans": Human, "occluders": Occluder}
    job = Job("test", root / "splits" / "test", fn, tables, key, shard_size=16, unit="composite", beside=BESIDE)
    return run(replace(job, known=root / "harvest"), lambda: found, total=len(found), quiet=True)
