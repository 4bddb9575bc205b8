"""`Completer` with networks that know: how often it looks at a person, and what it pastes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ahp_toolkit.core.masks import Box
from baselines.base import Batch, Result
from baselines.inference import complete as completing
from baselines.inference.complete import Completer
from baselines.training.runs import Loaded

SIDE, TOP, BOTTOM = 500, 100, 400  # of the photo; of the person, whose height is 300


class Oracle(nn.Module):
    """Knows the whole person, who is blue and nothing else is, wherever the crop shows them."""

    def predict(self, batch: Batch) -> Result:
        return Result(batch.given, (batch.image[:, 2:] + 1) / 2)


class Grey(nn.Module):
    """Paints everything grey, at its size."""

    def predict(self, batch: Batch) -> Result:
        return Result(batch.modal, batch.amodal, image=torch.zeros_like(batch.image))


def completer(content: int = 64) -> Completer:
    made = object.__new__(Completer)
    made.device = torch.device("cpu")
    made.mask, made.content = (
        Loaded(net, "oracle", task, {"size": size}, "0" * 64, {})  # type: ignore[arg-type]
        for net, task, size in ((Oracle(), "mask", 256), (Grey(), "content", content))
    )
    return made


def person(hidden: float, from_top: bool = False, left: int = 215, top: int = TOP) -> tuple[NDArray, NDArray, NDArray]:
    """A photo, who stands in it and what is seen of them, less ``hidden`` of their height at one end."""
    y, x = np.mgrid[:SIDE, :SIDE]
    whole = (x >= left) & (x < left + 70) & (y >= top) & (y < top + BOTTOM - TOP)
    cut = round(hidden * (BOTTOM - TOP))
    seen = whole & ((y >= top + cut) if from_top else (y < top + BOTTOM - TOP - cut))
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)
    photo[whole, 2] = 255
    return photo, whole, seen


def looks(monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    """The crops that are looked at from now on."""
    crops, honest = list[Box](), Completer._masks

    def counted(self, photo, given, crop):  # type: ignore[no-untyped-def]
        crops.append(crop)
        return honest(self, photo, given, crop)

    monkeypatch.setattr(Completer, "_masks", counted)
    return crops


@pytest.mark.parametrize("from_top", [False, True])
@pytest.mark.parametrize(("hidden", "count"), [(0.0, 2), (0.2, 2), (0.35, 2), (0.45, 3), (0.6, 5)])
def test_a_person_is_looked_at_until_no_border_cuts_them(
    hidden: float, count: int, from_top: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, whole, seen = person(hidden, from_top)
    crops = looks(monkeypatch)
    found = completer()(photo, mask=seen)
    assert len(crops) == count and found.crop == crops[-1]
    assert (found.amodal & whole).sum() > 0.97 * (found.amodal | whole).sum()
    assert 1.15 * (BOTTOM - TOP) < found.crop.width < 1.55 * (BOTTOM - TOP)  # as in training


def test_a_border_of_the_photo_cuts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = looks(monkeypatch)
    photo, whole, seen = person(0.2, left=0, top=SIDE - (BOTTOM - TOP))
    found = completer()(photo, mask=seen)
    assert len(crops) == 2 and (found.amodal & whole).sum() / whole.sum() > 0.97


def test_looking_ends_where_the_network_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Oracle()
    everything.predict = lambda b: Result(b.given, torch.ones_like(b.given))  # type: ignore[method-assign, assignment]
    crops, made = looks(monkeypatch), completer()
    made.mask = Loaded(everything, "all", "mask", {"size": 256}, "0" * 64, {})  # type: ignore[arg-type]
    photo = np.zeros((4000, 4000, 3), np.uint8)
    seen = np.zeros((4000, 4000), np.bool_)
    seen[2000:2100, 2000:2030] = True
    made(photo, mask=seen)
    assert len(crops) == completing.LOOKS


@pytest.mark.parametrize("size", [64, 256])
def test_what_is_pasted_back_has_no_colour_of_what_lies_around_it(size: int) -> None:
    photo, _, seen = person(0.3)
    found = completer(size)(photo, mask=seen)
    assert found.invisible.sum() > 1000
    assert (found.recovered[found.invisible] == 128).all() and (found.recovered[~found.invisible] != 128).all()
