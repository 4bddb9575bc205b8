"""The contract of design.md over all models and tasks."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from ahp_toolkit.core.errors import UserError
from baselines.base import MODELS, Baseline, Batch, Output, build_model, playing
from tests.baselines.models.overfit import overfit
from tests.baselines.models.world import UNTRAINED, batch, small

CASES = [(name, task) for name in MODELS.names() for task in MODELS.get(name).TASKS]
JOINED = ("human_deocclusion",)  # whose own paper joins the modal mask to the amodal one
#: What is halfway to four people known by heart (overfit.py goes all the way): an untrained model has an
#: IoU of 0.26 and less, or an l1 of 0.17 and more in the hole.
HALFWAY = {"mask": 0.5, "content": 0.09}
PARAMETRIZE = pytest.mark.parametrize(("name", "task"), CASES, ids=["-".join(c) for c in CASES])
TRAINED = [c for c in CASES if c[0] not in UNTRAINED]
LEARNING = pytest.mark.parametrize(("name", "task"), TRAINED, ids=["-".join(c) for c in TRAINED])
AIDS = {"carried": True, "two": True, "hidden": 1 / 3}
#: Every aid alone and all together, over all mask models; both places of l1, over all content models.
FORMS = [("mask", form) for form in ({"carried": True}, {"two": True}, {"hidden": 1 / 3}, AIDS)]
FORMS += [("content", {"loss": where}) for where in ("hole", "whole")]
SHARED = [(name, task, form) for task, form in FORMS for name, own in TRAINED if own == task]
FORMED = pytest.mark.parametrize(
    ("name", "task", "form"), SHARED, ids=["-".join([n, *f, str(f.get("loss", ""))]) for n, _, f in SHARED]
)


@lru_cache(maxsize=1)
def data() -> Batch:
    return batch()


def built(name: str, task: str, seed: int = 0, **form: object) -> Baseline:
    model = build_model(name, task, seed, **{**small(name, task), **form})
    model.prepare(data().need("amodal")[:, 0], seed)
    return model


def inference_only(b: Batch, task: str) -> Batch:
    """What the task may see at inference."""
    if task == "mask":
        return Batch(b.image, b.given)
    return Batch(b.image, b.given, b.modal, b.amodal, b.parsing)


@PARAMETRIZE
def test_says_what_it_is(name: str, task: str) -> None:
    module = MODELS.get(name)
    assert type(module.VERSION) is int and module.VERSION >= 1
    assert len(module.PAPER) > 20 and module.__doc__ and set(module.TASKS) <= {"mask", "content"}
    assert module.IN_PAPER is (name not in ("unet", *UNTRAINED))
    with pytest.raises(UserError, match="no setting 'widht'"):
        build_model(name, task, widht=3)


@PARAMETRIZE
def test_predicts_from_what_inference_has(name: str, task: str) -> None:
    model, given = built(name, task).eval(), inference_only(data(), task)
    with torch.no_grad():
        found = model.predict(given)
    if task == "mask":
        for mask in (found.amodal, found.modal):
            assert mask is not None and mask.shape == (4, 1, 64, 64)
            assert mask.min() >= 0 and mask.max() <= 1
        if name in JOINED:
            assert (found.amodal >= found.modal).all()  # type: ignore[operator]
    else:
        assert found.image is not None and found.image.shape == (4, 3, 64, 64)
        assert found.image.abs().max() <= 1
        outside = (1 - data().invisible).expand_as(found.image) > 0
        if name in UNTRAINED:
            assert torch.equal(found.image, data().image)
            return
        assert not torch.isclose(found.image[outside], data().image[outside], atol=1e-6).any()  # raw: nothing put back
    with torch.no_grad():
        again = model.predict(given)
    assert torch.equal(
        again.image if task == "content" else again.amodal, found.image if task == "content" else found.amodal
    )


@PARAMETRIZE
def test_channels_last_gives_the_same_answer(name: str, task: str) -> None:
    given, answers = inference_only(data(), task), []
    for layout in (torch.contiguous_format, torch.channels_last):  # the latter is what a GPU is given
        model = built(name, task).eval().to(memory_format=layout)  # type: ignore[call-overload]
        with torch.no_grad():
            found = model.predict(replace(given, image=given.image.contiguous(memory_format=layout)))
        answers.append(found.image if task == "content" else found.amodal)
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n, task in TRAINED if task == "mask" and n not in JOINED])
def test_a_wrong_initial_mask_is_not_forced_into_the_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, b = built(name, "mask").eval(), data()
    said = torch.full_like(b.given, -3.0)
    said[:, :, 20:30, 20:30] = 3.0
    monkeypatch.setattr(model, "forward", lambda batch: Output(amodal=said))
    with torch.no_grad():
        found = model.predict(Batch(b.image, b.given))
    assert found.amodal is not None and torch.equal(found.cut().amodal, (said > 0).float())
    assert found.modal is not None and torch.equal(found.modal, b.given)


@LEARNING
def test_two_steps_stay_finite(name: str, task: str) -> None:
    model = built(name, task).train()
    torch.manual_seed(0)
    hints = model.optimizers()
    optimizers = {turn: hints[turn].build(p) for turn, p in model.turns().items()}
    for _ in range(2):
        output = model(data())
        for turn, optimizer in optimizers.items():
            with playing(model, turn):
                terms = model.losses(data(), output, turn)
                total = model.total(terms)
                assert torch.isfinite(total), terms
                optimizer.zero_grad()
                total.backward(retain_graph=True)
                grown = [p.grad for p in model.turns()[turn] if p.grad is not None]
                assert all(torch.isfinite(g).all() for g in grown)
        for optimizer in optimizers.values():
            optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())


@LEARNING
def test_each_loss_moves_its_own_player_and_only_it(name: str, task: str) -> None:
    moves_its_own(built(name, task))


@FORMED
def test_so_it_does_in_every_shared_form(name: str, task: str, form: dict[str, object]) -> None:
    moves_its_own(built(name, task, **form))


@FORMED
def test_every_shared_form_predicts(name: str, task: str, form: dict[str, object]) -> None:
    model = built(name, task, **form).eval()
    with torch.no_grad():
        found = model.predict(inference_only(data(), task))
    if task == "content":
        assert found.image is not None and torch.isfinite(found.image).all()
        return
    assert found.modal is not None and found.amodal is not None
    for mask in (found.modal, found.amodal):
        assert mask.shape == (4, 1, 64, 64) and mask.min() >= 0 and mask.max() <= 1
    two = model.settings.two  # type: ignore[attr-defined]
    assert (found.modal is not data().given) == two
    if two:
        assert (found.amodal >= found.modal).all()


@pytest.mark.parametrize("name", [n for n, task in TRAINED if task == "mask" and n != "mask_rcnn"])
def test_carried_it_begins_at_the_initial_mask(name: str) -> None:
    model, b = built(name, "mask", **AIDS).eval(), data()
    for part in model.modules():  # heads that have learnt nothing yet
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and part.out_channels in (1, 2, 128):
            torch.nn.init.zeros_(part.weight)
            if part.bias is not None:
                torch.nn.init.zeros_(part.bias)
    with torch.no_grad():
        found = model.predict(Batch(b.image, b.given)).cut()
    assert found.modal is not None and torch.equal(found.modal, b.given)
    assert found.amodal is not None and torch.equal(found.amodal, b.given)


def moves_its_own(model: Baseline) -> None:
    model.train()
    turns = model.turns()
    everyone = [id(p) for p in model.parameters()]
    assert sorted(id(p) for own in turns.values() for p in own) == sorted(everyone)
    torch.manual_seed(0)
    for turn, own in turns.items():
        touched: set[int] = set()
        with playing(model, turn):
            output = model(data())
            terms = model.losses(data(), output, turn)
            assert terms and set(terms) <= set(model.weights)
            for term, value in terms.items():
                grads = torch.autograd.grad(value, own, retain_graph=True, allow_unused=True)
                moved = [g is not None and bool(g.abs().max() > 0) for g in grads]
                assert any(moved), f"{term} moves nothing of the {turn}"
                touched |= {id(p) for p, g in zip(own, grads, strict=True) if g is not None}
        # without the freeze, what the critic learns from must still leave the generator alone
        if turn == "critic":
            output = model(data())
            others = [p for t, ps in turns.items() if t != turn for p in ps]
            total = model.total(model.losses(data(), output, turn))
            assert all(g is None for g in torch.autograd.grad(total, others, allow_unused=True))
        dead = [n for n, p in model.named_parameters() if id(p) in {id(o) for o in own} - touched]
        assert not dead, f"no loss of the {turn} reaches {dead[:5]}"


@PARAMETRIZE
def test_saved_is_loaded_and_a_seed_is_a_model(name: str, task: str) -> None:
    model, twin, other = built(name, task), built(name, task), build_model(name, task, 1, **small(name, task))
    states = model.state_dict(), twin.state_dict(), other.state_dict()
    assert all(torch.equal(a, states[1][k]) for k, a in states[0].items())
    assert name in UNTRAINED or any(not torch.equal(a, states[2][k]) for k, a in states[0].items())
    file = io.BytesIO()
    torch.save(states[0], file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    given = inference_only(data(), task)
    with torch.no_grad():
        a, b = model.eval().predict(given), other.eval().predict(given)
    for x, y in ((a.amodal, b.amodal), (a.modal, b.modal), (a.image, b.image)):
        assert (x is None and y is None) or torch.equal(x, y)


@LEARNING
def test_learns_four_people(name: str, task: str) -> None:
    narrow = {"width": 16} if name == "mask_rcnn" else {}
    fit = overfit(name, task, most=120, goal=HALFWAY[task], every=10, **narrow)
    assert fit.reached, fit
    assert fit.before < 0.3 if task == "mask" else fit.before > 0.16, fit


def test_builds_are_alone_with_their_seed() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    built("human_deocclusion", "mask")
    assert torch.equal(torch.rand(1), before)


@pytest.mark.parametrize("size", [128, 192])
@pytest.mark.parametrize(("name", "task"), [("pix2pix", "mask"), ("human_deocclusion", "content")])
def test_other_sizes(name: str, task: str, size: int) -> None:
    model = build_model(name, task, **{**small(name, task), "size": size}).eval()
    with torch.no_grad():
        found = model.predict(inference_only(batch(2, size), task))
    made = found.amodal if task == "mask" else found.image
    assert made is not None and made.shape[2:] == (size, size)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(UserError, match="did you mean pix2pix"):
        build_model("pixpix", "mask")
    with pytest.raises(UserError, match="no task 'mask'"):
        build_model("deepfillv2", "mask")
    with pytest.raises(UserError, match="must be a bool, got 1"):
        build_model("human_deocclusion", "mask", parsing=1)
    with pytest.raises(UserError, match="multiple of 64"):
        build_model("human_deocclusion", "mask", size=100)
    model = build_model("human_deocclusion", "mask", **small("human_deocclusion", "mask"))
    with pytest.raises(UserError, match="divisible by 64"):
        model(Batch(torch.zeros(1, 3, 60, 60), torch.zeros(1, 1, 60, 60)))
    with pytest.raises(UserError, match="'amodal'"):
        model.losses(Batch(data().image, data().given), model(data()), "generator")


def test_the_mean_template_is_the_mean_person_on_the_initial_masks_box() -> None:
    people = torch.zeros(4, 32, 32)
    people[0, 4:20, 8:16] = people[1, 0:32, 2:30] = people[2, 16:32, 16:32] = 1  # full boxes, wherever they stand
    people[3, 0:8, 0:4] = 1
    people[3, 0:4, 0:2] = 0  # one of four has no upper left quarter
    model = build_model("mean_template", "mask", size=64)
    model.prepare(people)
    assert model.template[8, 8] == 0.75 and model.template[40, 40] == 1
    initial = torch.zeros(1, 1, 64, 64)
    initial[0, 0, 10:40, 20] = initial[0, 0, 12, 20:31] = 1
    found = model.predict(Batch(torch.zeros(1, 3, 64, 64), initial)).cut()
    expected = torch.zeros_like(initial)
    expected[0, 0, 10:40, 20:31] = 1
    assert found.amodal is not None and torch.equal(found.amodal, expected)
    empty = model.predict(Batch(torch.zeros(1, 3, 64, 64), torch.zeros_like(initial))).cut().amodal
    assert empty is not None and not empty.any()
    with pytest.raises(UserError, match="training people"):
        model.prepare(torch.zeros(2, 8, 8))
