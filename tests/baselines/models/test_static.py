"""Inference without host reads, and captured graphs: on a CPU through a capture that runs the pass again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from baselines.base import MODELS, Baseline, Batch, Result, build_model
from baselines.inference.graphs import MOST, Graphs, HostRead, NoHostReads, cast_once
from baselines.layers import attention
from baselines.layers.pga import PARTS, one_hot_parts
from tests.baselines.models.world import batch, small

CASES = [(name, task) for name in MODELS.names() for task in MODELS.get(name).TASKS]
READS = {"mask_rcnn"}  # instances come in numbers that hang on the picture


def again(fn: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """A capture for the CPU: a replay runs the pass and fills the first one's outputs."""
    made = fn()

    def replay() -> None:
        fresh = fn()
        for name in ("modal", "amodal", "parsing", "modal_parsing", "image"):
            held, new = getattr(made, name), getattr(fresh, name)
            if held is not None and held is not new:
                held.copy_(new)

    return replay, made


def built(name: str, task: str) -> Baseline:
    model = build_model(name, task, **small(name, task))
    model.prepare(batch().need("amodal")[:, 0])
    return model.eval()


def shown(task: str, seed: int = 0, count: int = 2) -> Batch:
    b = batch(count, seed=seed)
    return Batch(b.image, b.given) if task == "mask" else Batch(b.image, b.given, b.modal, b.amodal, b.parsing)


def equal(a: Result, b: Result, exact: bool = True) -> None:
    for name in ("modal", "amodal", "parsing", "modal_parsing", "image"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)


@pytest.mark.parametrize(("name", "task"), CASES, ids=["-".join(c) for c in CASES])
def test_inference_reads_no_value_on_the_host(name: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = built(name, task), shown(task)
    with torch.no_grad():
        eager = model.predict(given)
        monkeypatch.setattr(attention, "_picks", lambda query: False)  # the form that a GPU takes
        if name in READS:
            with pytest.raises(HostRead), NoHostReads():
                model.predict(given)
            return
        with NoHostReads():
            static = model.predict(given)
    equal(static, eager, exact=False)


@pytest.mark.parametrize("form", ["eq6", "two_way", "listing"])
def test_the_static_form_is_the_picked_one(form: Any) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 96, d) for d in (8, 8, 24))
    visible, invisible = torch.rand(2, 96) < 0.3, torch.rand(2, 96) < 0.3
    visible[1] = False  # a person of whom nothing is seen
    found = [attention.pairwise(q, k, v, (visible, invisible), form, how) for how in ("picked", "static")]  # type: ignore[arg-type]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with NoHostReads():
        attention.pairwise(q, k, v, (visible, invisible), form, "static")


def test_one_hot_is_torchs() -> None:
    labels = torch.randint(0, PARTS + 1, (2, 8, 8))
    theirs = torch.nn.functional.one_hot(labels, PARTS + 1)[..., 1:].permute(0, 3, 1, 2).float()
    ours = one_hot_parts(labels)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


@pytest.mark.parametrize("task", ["mask", "content"])
def test_a_graph_answers_as_the_model_does(task: str) -> None:
    model, calls = built("human_deocclusion", task), []

    def how(fn: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        calls.append(1)
        return again(fn)

    graphs = Graphs(model, how=how)
    attention_was = attention._picks
    attention._picks = lambda query: False  # type: ignore[assignment]
    try:
        with torch.inference_mode():
            kept = [(graphs(shown(task, seed)), model.predict(shown(task, seed))) for seed in range(4)]
            odd = graphs(shown(task, 9, 1)), model.predict(shown(task, 9, 1))
    finally:
        attention._picks = attention_was
    for mine, theirs in [*kept, odd]:  # an earlier answer is not written over by a later one
        equal(mine, theirs)
    assert len(calls) == 1 and graphs.able  # from the second batch of a shape on; the odd last one is eager


def test_what_is_handed_through_stays_the_callers() -> None:
    model = built("pix2pix", "mask")
    graphs = Graphs(model, how=again)
    for seed in range(3):
        given = shown("mask", seed)
        with torch.inference_mode():
            assert graphs(given).modal is given.given


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def refused(fn: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        raise RuntimeError("operation not permitted when stream is capturing\nand many more lines")

    for name, how in (("pix2pix", refused), ("mask_rcnn", again)):
        model = built(name, "mask")
        graphs = Graphs(model, how=how)
        caplog.clear()
        with caplog.at_level(logging.WARNING), torch.inference_mode():
            for seed in range(4):
                equal(graphs(shown("mask", seed)), model.predict(shown("mask", seed)))
        said = [r.getMessage() for r in caplog.records if "without a CUDA graph" in r.getMessage()]
        assert len(said) == 1 and "\n" not in said[0]


def test_graphs_are_few_and_a_cpu_has_none() -> None:
    model = built("pix2pix", "mask")
    plain, graphs = Graphs(model), Graphs(model, how=again)
    with torch.inference_mode():
        for count in (*range(1, MOST + 3), *range(1, MOST + 3)):
            plain(shown("mask", 0, count))
            graphs(shown("mask", 0, count))
    assert not plain.made and len(graphs.made) == MOST


def test_weights_cast_once_answer_as_autocast_does() -> None:
    model, given = built("human_deocclusion", "mask"), shown("mask")
    cast = cast_once(model, torch.bfloat16)
    assert cast_once(model, torch.float32) is model and next(model.parameters()).dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        equal(cast.predict(given), model.predict(given))
