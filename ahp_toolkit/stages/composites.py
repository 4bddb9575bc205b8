"""The stage of the real test set (paper §5.1): composites that all voters passed become frozen samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Human, Occluder, Sample
from ahp_toolkit.decisions.composites import STAGE, Composite
from ahp_toolkit.decisions.votes import keep_voters, passed, voters_of
from ahp_toolkit.occlusion.densities import Target, parse
from ahp_toolkit.occlusion.place import Placed, Settings
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Result, Stage
from ahp_toolkit.stages.materialize import BESIDE
from ahp_toolkit.stages.synthesize import Initial, Synth
from ahp_toolkit.storage import missing, parquet
from ahp_toolkit.storage.build_folder import Build
from ahp_toolkit.storage.images import ImageError


@dataclass(frozen=True)
class Freeze:
    """The stage function: passed composites -> frozen Samples, with the humans and occluders they need.

    ``outdated``: proposals whose human is no longer a preserved one of the test split with the same mask.
    """

    initial: Initial
    seed: int
    roots: dict[str, str]
    outdated: frozenset[str] = frozenset()

    def __call__(self, items: Sequence[Composite]) -> Output:
        """One shard; a composite whose photos cannot be read is dropped."""
        out, render = Output({MAIN: [], "humans": [], "occluders": []}), Renderer(self.roots)
        for c in items:
            name, source = f"test/{c.proposal_id}", c.human.image.source
            if c.proposal_id in self.outdated:
                detail = "the human is no preserved one of the test split, or has another mask now; propose again"
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


def frozen_by(root: Path) -> tuple[Initial, int]:
    """What makes the initial masks of a build's splits, and its seed, from ``build.json``.

    Raises:
        UserError: when the folder is no build.
    """
    build, plain = Build(root), Initial()
    o = build.options
    maker, weights = o.get("initial", plain.maker), o.get("initial_weights")
    return Initial(maker, weights, o.get("initial_iou", plain.iou), o.get("device", plain.device)), build.seed


def write_test(
    root: Path, voters: int | None = None, initial: Initial | None = None, seed: int | None = None
) -> Result:
    """Write ROOT/splits/test in this process; see `stage`."""
    with LocalEngine(1) as engine:
        return stage(root, voters, initial, seed).run(engine, quiet=True)


def stage(root: Path, voters: int | None = None, initial: Initial | None = None, seed: int | None = None) -> Stage:
    """The test split of the passed composites and nothing else, into ROOT/splits/test.

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
    outdated = frozenset(c.proposal_id for c in found if now_in.get(c.human.human_id) != c.human.mask)
    fn = Freeze(initial, seed, Build(root).data_roots, outdated)
    key = {
        "composites": [hashing.digest_value(repr(c)) for c in found],  # masks too: a version is of the placement alone
        "outdated": sorted(outdated),
        "initial": fn.initial.key(),
        "seed": seed,
        "code": code_digest(__name__, *fn.initial.modules()),
    }
    tables = {MAIN: Sample, "humans": Human, "occluders": Occluder}
    job = Job("test", root / "splits" / "test", fn, tables, key, shard_size=16, unit="composite", beside=BESIDE)
    job = replace(job, check=missing.mounted(fn.roots, root / "harvest"))
    return Stage(job, found)
