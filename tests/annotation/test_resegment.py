"""Another segmenter on humans to refine: its masks come back into the queue, and count only when decided on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.decisions import proposals
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.segmenters.base import Segmentation
from ahp_toolkit.storage import images
from annotation.exchange import resegment
from annotation.exchange.resegment import Tool
from tests.annotation.small import person, picture, say, write

PEOPLE = [person(i) for i in range(6)]
IDS = [p.candidate.candidate_id for p in PEOPLE]


class Red:
    """Finds the red person in the crop; nobody in photo 3."""

    name = "red@1"
    batches: list[int] = []  # noqa: RUF012

    def __call__(self, prompts):
        self.batches.append(len(prompts))
        masks = [a.pixels[:, :, 0] == 200 for a in prompts]
        return [Segmentation(m if m.sum() != 14 * 47 else np.zeros_like(m), 0.75) for m in masks]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(resegment, "built", lambda *_, **__: Red())
    real = resegment.SEGMENTERS.get
    monkeypatch.setattr(
        resegment.SEGMENTERS, "get", lambda n: SimpleNamespace(NEEDS_PIXELS=True) if n == "red" else real(n)
    )
    thin = [person(i) for i in range(6)]
    m = thin[0].mask.decode()
    m[:30] = False
    people = [replace(p, mask=encode(m & p.mask.decode())) for p in thin]
    write(tmp_path, people)
    for p in thin:  # the photos show the whole person
        images.write_png(tmp_path / "data/coco" / p.candidate.image.path, picture(p))
    return tmp_path


def test_only_those_to_refine_get_a_proposal_and_all_others_are_accounted_for(root):
    for cid, verdict in zip(IDS, ["refine", "preserve", "refine", "refine", "discard"], strict=False):
        say(root, "ann", cid, verdict)
    (root / "data/coco/000002.png").unlink()
    done = resegment.resegment(root, Tool("red"), {"coco": str(root / "data/coco")})
    assert done.summary == "1 proposed, 0 unchanged, 2 dropped (1 empty_mask, 1 missing)"
    (new,) = (of[-1] for of in proposals.read_all(root / "refine").values())
    assert (new.candidate_id, new.segmented.segmenter, new.segmented.score) == (IDS[0], "red@1", 0.75)
    assert new.segmented.mask == PEOPLE[0].mask
    assert Decisions(root).refresh().reopened == {IDS[0]}


def test_the_same_mask_again_is_no_proposal(root):
    say(root, "ann", IDS[0], "refine")
    roots = {"coco": str(root / "data/coco")}
    assert resegment.resegment(root, Tool("red"), roots).proposed == 1
    say(root, "ann", IDS[0], "refine")
    again = resegment.resegment(root, Tool("red"), roots)
    assert (again.proposed, again.unchanged) == (0, 1)
    assert Decisions(root).refresh().reopened == set()


def test_batches_are_of_the_given_size(root):
    for cid in IDS[:3]:
        say(root, "ann", cid, "refine")
    Red.batches.clear()
    resegment.resegment(root, Tool("red", batch_size=2), {"coco": str(root / "data/coco")})
    assert Red.batches == [2, 1]


def test_a_segmenter_that_sees_nothing_is_refused(root):
    with pytest.raises(UserError, match="sees no photo; choose one of"):
        resegment.resegment(root, Tool("source_mask"), {})
    with pytest.raises(UserError, match="no segmenter is named"):
        resegment.resegment(root, Tool("sammm"), {})
