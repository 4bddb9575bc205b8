"""The paper's networks: rows of Tables 4, 5 and 6, people without parsing, dimming, where l1 is taken."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from baselines.base import Batch, Output, build_model
from baselines.layers.aids import decide
from baselines.models.human_deocclusion import TABLE4, TABLE5, TABLE6
from tests.baselines.models.world import batch, small

MASK, CONTENT = small("human_deocclusion", "mask"), small("human_deocclusion", "content")


@pytest.mark.parametrize("row", TABLE4)
def test_rows_of_table_4(row: str) -> None:
    settings = {**MASK, **TABLE4[row]}
    settings["templates"] = min(int(settings["templates"]), 4)
    model = build_model("human_deocclusion", "mask", **settings)
    model.prepare(batch().need("amodal")[:, 0])
    terms = model.losses(batch(), model(batch()), "generator")
    assert ("adversarial" in terms) == ("critic" in model.turns()) == (row[0] != "1")
    assert ("modal" in terms) == (row[0] in "3456")
    assert ("amodal_parsing" in terms) == ("modal_parsing" in terms) == (row[0] in "46")
    assert model.wants_masks == (row[0] in "56")
    found = model.eval().predict(Batch(batch().image, batch().given))
    assert found.modal is not None
    assert torch.equal(found.modal, batch().given) == (row[0] in "12")


@pytest.mark.parametrize("hidden", [0.0, 1 / 3])
def test_without_a_modal_branch_the_initial_mask_is_what_is_seen(
    hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = build_model("human_deocclusion", "mask", **MASK, two=False, hidden=hidden).eval(), batch()
    logits = torch.linspace(-3, 3, data.given.numel()).view(data.given.shape)
    monkeypatch.setattr(model.net, "forward", lambda _: Output(amodal=logits))
    found, chance = model.predict(data).cut(), logits.sigmoid()
    assert found.modal is not None and found.amodal is not None
    assert torch.equal(found.modal, data.given)
    lost = (chance > hidden) & (data.given == 0) & (hidden > 0)
    assert bool((lost & (chance <= 0.5)).any()) == (hidden > 0)  # else both cuts would be alike here
    assert torch.equal(found.amodal > 0, (chance > 0.5) | lost)


@pytest.mark.parametrize("row", [*TABLE5, *TABLE6])
def test_rows_of_tables_5_and_6(row: str) -> None:
    model = build_model("human_deocclusion", "content", **{**CONTENT, **({**TABLE5, **TABLE6}[row])})
    terms = model.losses(batch(), model(batch()), "generator")
    assert torch.isfinite(model.total(terms)) and set(terms) == {"adversarial", "l1", "perceptual", "style"}
    if row in TABLE6:
        assert model.settings.w == (0.3 if row[0] in "256" else 1.0)
        assert model.settings.attention_b == (row[0] in "356") and model.settings.attention_t == (row[0] in "456")


@pytest.mark.parametrize("carried", [True, False])
def test_the_initial_mask_reaches_the_amodal_network_by_itself_or_by_eq_2(carried: bool) -> None:
    model = build_model("human_deocclusion", "mask", **MASK, carried=carried).eval()
    model.net.first.register_forward_hook(lambda _, __, feature: torch.zeros_like(feature))  # N_m tells nothing
    data = batch()
    with torch.no_grad():
        a, b = (model(dataclasses.replace(data, given=given)).amodal for given in (data.given, 1 - data.given))
    assert a is not None and b is not None and torch.equal(a, b) == (not carried)


@pytest.mark.parametrize("carried", [True, False])
def test_untrained_it_answers_with_the_initial_mask_and_with_background(carried: bool) -> None:
    torch.manual_seed(0)
    model, data = build_model("human_deocclusion", "mask", **MASK, carried=carried).eval(), batch()
    with torch.no_grad():
        found = model.predict(data).cut()
    assert found.modal is not None and found.amodal is not None
    assert found.parsing is not None and not found.parsing.any()
    alike = [bool(torch.equal(m, data.given)) for m in (found.modal, found.amodal)]
    assert alike == [carried] * 2


def pixels(*chances: float) -> torch.Tensor:
    """Logits [1, 1, 1, W] of probabilities."""
    return torch.tensor(chances).logit().view(1, 1, 1, -1)


def test_masks_are_decided_at_once() -> None:
    # seen; hidden; unsure of both, hidden with .15; hidden with .4 though .45 the person's; background; modal alone
    modal, amodal = pixels(0.9, 0.1, 0.45, 0.05, 0.1, 0.6), pixels(0.95, 0.9, 0.6, 0.45, 0.2, 0.4)
    masks = [m.flatten() > 0.5 for m in decide(modal, amodal, modal, 0.5, 1 / 3)]
    assert masks[0].tolist() == [True, False, True, False, False, True]
    assert masks[1].tolist() == [True, True, True, True, False, True]
    apart = [m.flatten() > 0.5 for m in decide(modal, amodal, modal, 0.5, 0)]
    assert apart[0].tolist() == [True, False, False, False, False, True]
    assert apart[1].tolist() == [True, True, True, False, False, True]


CHANCE = st.floats(0.001, 0.999)


@given(CHANCE, CHANCE, st.floats(0.01, 0.99), st.floats(0.0, 0.99))
def test_decided_masks_nest_and_hide_what_is_likely_hidden(m: float, a: float, threshold: float, hidden: float) -> None:
    seen, whole = (x.item() for x in decide(pixels(m), pixels(a), pixels(m), threshold, hidden))
    assert 0 <= seen <= whole <= 1
    if hidden > 0 and abs(a - m - hidden) > 1e-3:
        assert (whole > 0.5 >= seen) == (a - m > hidden)


def test_people_without_parsing_train_the_mask_terms_only() -> None:
    model = build_model("human_deocclusion", "mask", **MASK)
    model.prepare(batch().need("amodal")[:, 0])
    output = model(batch())
    with_some = dataclasses.replace(batch(), has_parsing=torch.tensor([True, False, False, False]))
    with_none = dataclasses.replace(batch(), parsing=None)
    some, none = (model.losses(b, output, "generator") for b in (with_some, with_none))
    assert some["amodal_parsing"] > 0 and none["amodal_parsing"] == 0 and none["modal_parsing"] == 0
    assert some["amodal"] == none["amodal"] > 0
    grads = torch.autograd.grad(none["amodal_parsing"], list(model.net.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


def test_training_without_templates_found_is_an_error() -> None:
    model = build_model("human_deocclusion", "mask", **MASK)
    with pytest.raises(UserError, match="prepare"):
        model.losses(batch(), model(batch()), "generator")


def test_the_background_weight_dims_only_the_background() -> None:
    model = build_model("human_deocclusion", "content", **CONTENT)
    image, amodal = batch().image, batch().need("amodal")
    dimmed = model.dimmed(image, amodal)
    torch.testing.assert_close(dimmed * amodal, image * amodal)
    torch.testing.assert_close(dimmed * (1 - amodal), 0.3 * image * (1 - amodal))


def test_content_takes_stage_1_masks_and_parsings() -> None:
    model = build_model("human_deocclusion", "content", **CONTENT).eval()
    data = batch()
    modal_parsing, parsing = data.parsings()
    with torch.no_grad():
        truth = model.predict(data).image
        same = model.predict(dataclasses.replace(data, modal_parsing=modal_parsing)).image
        other = model.predict(dataclasses.replace(data, modal_parsing=parsing.flip(1))).image
    assert truth is not None and same is not None and other is not None
    assert torch.equal(truth, same) and not torch.equal(truth, other)


def test_l1_is_the_mean_over_the_hidden_pixels_alone() -> None:
    model, data = build_model("human_deocclusion", "content", **CONTENT), batch()
    truth, hole = data.need("target"), data.invisible
    raw = (truth + 0.5 * hole + 3 * (1 - hole)).requires_grad_()  # wrong by 0.5 in the hole, by 3 elsewhere
    l1 = model.losses(data, Output(image=raw), "generator")["l1"]
    assert float(l1.detach()) == pytest.approx(0.5, rel=1e-5)
    (grad,) = torch.autograd.grad(l1, raw)
    assert grad.sum() == pytest.approx(1, rel=1e-4) and not (grad * (1 - hole)).any()
    whole = dataclasses.replace(data, modal=data.amodal)
    assert model.losses(whole, Output(image=raw), "generator")["l1"] == 0  # nobody hidden: nothing to paint
