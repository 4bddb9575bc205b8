"""The first opinion: the plain rule without a classifier, a calibrated classifier where the package holds one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Flags
from ahp_toolkit.decisions import features, rule
from ahp_toolkit.decisions.triage import features as triage_features
from ahp_toolkit.decisions.triage.models import rule_scores
from tests.annotation.small import H, W, occluder, person, rectangle

#: Contact counts against a person (mean .1, deviation .1); an unknown contact is a little worse than the mean.
CLASSIFIER = {
    "features": ["mask_contact", "holes"],
    "mean": [0.1, 0.0],
    "scale": [0.1, 1.0],
    "missing": ["mask_contact"],
    "layers": [{"weights": [[-1.0, -2.0, -0.5]], "bias": [0.0]}],
    "calibration": {"slope": 2.0, "offset": 1.0},
    "threshold": 0.9,
}


@pytest.fixture
def learned(tmp_path, monkeypatch):
    """Put a classifier in the package's place."""

    def put(**changes):
        path = tmp_path / f"opinion{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(CLASSIFIER | changes))
        monkeypatch.setattr(rule, "OPINION", path)
        rule.opinion.cache_clear()
        return path

    yield put
    rule.opinion.cache_clear()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def contact(share):
    from ahp_toolkit.core.records import Neighbours

    return person(1, neighbours=Neighbours(mask_contact=share))


def test_the_certainty_is_that_of_the_written_formula(learned):
    learned()
    assert rule.certainty(contact(0.3)) == pytest.approx(sigmoid(2 * -2 + 1))
    assert rule.certainty(contact(0.0)) == pytest.approx(sigmoid(2 * 1 + 1))
    assert rule.certainty(contact(None)) == pytest.approx(sigmoid(2 * -0.5 + 1))
    assert rule.certainty(contact(1e9)) == pytest.approx(sigmoid(2 * -6 + 1))  # at most 6 deviations


def test_two_layers_have_a_relu_between_them(learned):
    layers = [{"weights": [[1, 0, 0], [-1, 0, 0]], "bias": [0, 0]}, {"weights": [[3, 1]], "bias": [0.5]}]
    learned(layers=layers, calibration={"slope": 1, "offset": 0})
    assert rule.certainty(contact(0.3)) == pytest.approx(sigmoid(3 * 2 + 0.5))
    assert rule.certainty(contact(0.0)) == pytest.approx(sigmoid(1 + 0.5))


def test_only_the_certain_are_preserved_and_all_stays_provisional(learned):
    learned()
    sure, unsure = rule.decide(contact(0.0)), rule.decide(contact(0.09))
    assert (sure.verdict, sure.provisional, sure.note) == ("preserve", True, "certainty 0.95")
    assert (unsure.verdict, unsure.reason, unsure.provisional) == ("discard", "occluded", True)
    assert rule.decide(person(1, flags=Flags(depiction=True))).reason == "not_a_person"  # whatever the classifier says
    row = triage_features.row_of(contact(0.0))
    assert rule_scores(triage_features.matrix([row]))[0] == pytest.approx(sigmoid(3))  # triage's cold start


def test_without_a_classifier_the_plain_rule_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(rule, "OPINION", tmp_path / "none.json")
    rule.opinion.cache_clear()
    assert math.isnan(rule.certainty(person(1))) and rule.decide(person(1)).verdict == "preserve"
    rule.opinion.cache_clear()


@pytest.mark.parametrize(
    "changes",
    [{"features": ["mask_contact", "luck"]}, {"mean": [0.1]}, {"layers": []}, {"threshold": None}, {"calibration": {}}],
)
def test_a_damaged_classifier_is_told_in_one_line(learned, changes):
    path = learned(**changes)
    with pytest.raises(UserError, match=rf"{path.name}: expected a classifier"):
        rule.decide(person(1))


def test_features_know_holes_pieces_bands_and_level_edges():
    mask = rectangle(10, 10, 30, 50)
    mask[20:24, 15:20] = False  # a hole of 20 px²
    mask[60:70, 10:20] = True  # a second piece
    got = dict(zip(features.NAMES, features.vector(person(1, mask=encode(mask))), strict=True))
    assert (got["pieces"], got["holes"]) == (2.0, 1.0)
    assert got["hole_share"] == pytest.approx(20 / mask.sum())
    assert got["width_0"] == pytest.approx(20 / 60) and got["width_7"] == pytest.approx(10 / 60)
    assert got["flat_base"] == 1.0 and got["flat_top"] == 1.0  # 20 px of a box 20 px wide
    assert math.isnan(got["sharpness"]) and len(got) == len(features.NAMES)


def test_a_sharp_photo_is_sharper_than_a_smooth_one():
    fine = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    at = features.NAMES.index("sharpness")
    smooth = np.full((H, W, 3), 90, np.uint8)
    assert features.vector(person(1), pixels=fine)[at] > features.vector(person(1), pixels=smooth)[at] == 0.0
    assert math.isnan(features.vector(person(1), pixels=fine[:5])[at])


def test_the_things_of_a_photo_are_read_from_their_part(tmp_path):
    from ahp_toolkit.core.records import Occluder
    from ahp_toolkit.storage import parquet

    image = person(1).candidate.image
    part = tmp_path / "part-00000.parquet"
    parquet.write_records(part, [occluder(image, (22, 30, 34, 70), "n")], Occluder)
    assert [o.occluder_id for o in features.things_by_photo(part)[image.image_id]] == ["n"]
    assert features.things_by_photo(tmp_path / "part-00001.parquet") is None
