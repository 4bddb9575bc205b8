"""The limit on the adversarial gradient (`losses.no_louder`)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from baselines import losses as L

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
    held = torch.autograd.grad((L.no_louder(x, TRUTH, share) * weights).sum(), x)[0]
    torch.testing.assert_close(held.flatten(1).norm(dim=1), allowed)
    cosine = F.cosine_similarity(held.flatten(1), weights.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(2))


def test_a_quiet_term_passes_unchanged_and_values_never_change() -> None:
    x = LOGITS.clone().requires_grad_()
    y = L.no_louder(x, TRUTH, 1.0)
    torch.testing.assert_close(y, x)
    quiet = torch.autograd.grad((y * 1e-6).sum(), x)[0]
    torch.testing.assert_close(quiet, torch.full_like(x, 1e-6))


def test_the_limit_of_a_sample_does_not_depend_on_the_others_beyond_the_batch_mean() -> None:
    both = LOGITS.clone().requires_grad_()
    one = LOGITS[:1].clone().requires_grad_()
    two = torch.autograd.grad(L.no_louder(both, TRUTH, 0.5).sum(), both)[0][:1]
    alone = torch.autograd.grad(L.no_louder(one, TRUTH[:1], 0.5).sum(), one)[0]
    torch.testing.assert_close(two * 2, alone)
