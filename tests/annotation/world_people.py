"""People of the sample world as the triage's feature rows, with their truth: scenes go straight to features."""

from __future__ import annotations

from collections.abc import Sequence

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.neighbours import neighbours_of
from ahp_toolkit.core.records import Candidate, Flags, ImageRef, Instance, Occluder, Segmented
from ahp_toolkit.decisions.triage.features import Row, row_of
from ahp_toolkit.sample_world import generate
from ahp_toolkit.sample_world.scene import WorldPerson, WorldScene
from ahp_toolkit.segmenters.source_mask import NAME, quality

LAYOUTS = ("hidden", "overlap") * 6 + ("close", "close", "crowd", "poster", "mirror", "solo", "pair", "trio")


def world(
    scenes: int, seed: int = 0, size: int = 224, layouts: Sequence[str] = LAYOUTS
) -> tuple[list[Row], dict[str, str]]:
    """Feature rows and candidate id -> true verdict; half the photos come with Open Images' flags."""
    rows, truth = [], {}
    for i in range(scenes):
        scene = generate(seed, i, (size, size), layouts[i % len(layouts)])
        for row, verdict in _people(scene, i, size):
            rows.append(row)
            truth[row.candidate_id] = verdict
    return rows, truth


def _people(scene: WorldScene, i: int, size: int) -> Sequence[tuple[Row, str]]:
    image = ImageRef(f"x/{i:06d}", "x", "x.jpg", size, size, f"x/{i:06d}")
    people = [(p, f"x/{i:06d}#{k}") for k, p in enumerate(scene.people) if p.given.any()]
    given = [(p, name, encode(p.given)) for p, name in people]
    instances = [Instance(name, "person", mask.box, mask, None, _flags(p, i)) for p, name, mask in given]
    things = [Instance(f"{i}t{k}", t.label, t.box, encode(t.modal)) for k, t in enumerate(scene.objects)]
    others = [
        Occluder(o.instance_id, image, o.label, o.box, o.mask, o.mask.area)
        for o in [*instances, *things] if o.mask is not None and o.mask.area
    ]  # fmt: skip
    near = neighbours_of(instances, [*instances, *things], size, size)
    out = []
    for (p, name, mask), inst, n in zip(given, instances, near, strict=True):
        known = i % 2 and (p.depiction or p.reflection)
        if p.crowd or known or mask.area < 300 or mask.touches_border(5):
            continue  # harvest drops these
        c = Candidate(name, image, mask.box, mask, None, inst.flags, n)
        out.append((row_of(Segmented(c, mask, quality(mask, mask.box), NAME, 0), others=others), p.verdict))
    return out


def _flags(p: WorldPerson, i: int) -> Flags:
    return Flags(occluded=p.occluded, truncated=p.truncated) if i % 2 else Flags(crowd=False)
