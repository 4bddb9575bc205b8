"""The limit on the adversarial gradient (`losses.limit_gradient`), also in micro-batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ahp_toolkit.nets.loop import Loop, Player, Schedule
from baselines.base import build_model
from baselines.layers import losses as L
from baselines.layers.synced import counted
from baselines.training.train import ModelLoop
from tests.baselines.models.world import batch, small

LOGITS = torch.linspace(-3, 3, 2 * 16).reshape(2, 1, 4, 4).roll(5)
TRUTH = (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()


def norms(term: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L2 norm of the gradient of each sample."""
    return torch.autograd.grad(term, x)[0].flatten(1).norm(dim=1)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_loud_term_is_held_to_its_share_of_the_cross_entropy_and_keeps_its_direction(share: float) -> None:
    x = LOGITS.clone().requires_grad_()
    allowed = norms(F.binary_cross_entropy_with_logits(x, TRUTH), x) * share
    weights = torch.arange(32.0).reshape(2, 1, 4, 4)
    held = torch.autograd.grad((L.limit_gradient(x, TRUTH, share) * weights).sum(), x)[0]
    torch.testing.assert_close(held.flatten(1).norm(dim=1), allowed)
    cosine = F.cosine_similarity(held.flatten(1), weights.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(2))


def test_a_quiet_term_passes_unchanged_and_values_never_change() -> None:
    x = LOGITS.clone().requires_grad_()
    y = L.limit_gradient(x, TRUTH, 1.0)
    torch.testing.assert_close(y, x)
    quiet = torch.autograd.grad((y * 1e-6).sum(), x)[0]
    torch.testing.assert_close(quiet, torch.full_like(x, 1e-6))


def test_the_limit_of_a_sample_does_not_depend_on_the_others_beyond_the_batch_mean() -> None:
    both = LOGITS.clone().requires_grad_()
    one = LOGITS[:1].clone().requires_grad_()
    two = torch.autograd.grad(L.limit_gradient(both, TRUTH, 0.5).sum(), both)[0][:1]
    alone = torch.autograd.grad(L.limit_gradient(one, TRUTH[:1], 0.5).sum(), one)[0]
    torch.testing.assert_close(two * 2, alone)


class OneTurn(Loop):
    """The model's own losses."""

    forward = ModelLoop.forward  # type: ignore[assignment]
    terms = ModelLoop.terms  # type: ignore[assignment]


def gradient(term: str, accumulate: int, loud: float, **settings: float) -> float:
    """L2 norm of the generator's gradient of one weighted term, of a training step in so many micro-batches."""
    net = build_model("human_deocclusion", "mask", **small("human_deocclusion", "mask") | {"templates": 0} | settings)
    net.eval().train = lambda mode=True: net  # type: ignore[method-assign, assignment, misc]  # batch norms go by micro-batch
    with torch.no_grad():
        net.critic.layers[-1].weight.mul_(loud)  # type: ignore[union-attr, operator]
    net.weights = {k: v * (k == term) for k, v in net.weights.items()}
    mine = net.turns()["generator"]
    loop = OneTurn("test", Schedule(1, 1, cosine=False), 0, torch.device("cpu"), torch.float32)
    loop.net, loop.players = net, [Player("generator", mine, torch.optim.SGD(mine, 0.0), 0.0)]
    data, share = batch(4), 4 // accumulate
    loop._step(0, counted([data[k : k + share] for k in range(0, 4, share)]))
    return float(torch.cat([p.grad.flatten() for p in mine if p.grad is not None]).norm())


@pytest.mark.parametrize("loud", [1.0, 300.0])
@pytest.mark.parametrize("term", ["amodal", "adversarial"])
def test_micro_batches_leave_the_share_what_it_is(term: str, loud: float) -> None:
    whole, half, quarter = (gradient(term, k, loud) for k in (1, 2, 4))
    assert whole > 0 and half == pytest.approx(whole, rel=1e-3) and quarter == pytest.approx(whole, rel=1e-3)


def test_the_share_is_of_the_weighted_cross_entropy() -> None:
    one, three = (gradient("adversarial", 1, 300.0, l_seg=w) for w in (1.0, 3.0))
    assert three == pytest.approx(3 * one, rel=1e-3)
    assert gradient("adversarial", 1, 1.0, l_seg=0.0) > 0  # nothing to drown out: not turned off
