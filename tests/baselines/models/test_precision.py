"""What bfloat16 autocast may not round: Gram matrices, template products, the attention's log-sum-exp and delta."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.layers import losses as L
from baselines.layers.attention import attend
from baselines.layers.templates import template_weights


def test_gram_matrices_are_float32_under_autocast() -> None:
    feature = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = L.gram(feature)
    assert torch.equal(found, L.gram(feature))


@pytest.mark.parametrize("rule", ["l2", "softmax"])
def test_template_weights_are_float32_under_autocast(rule: str) -> None:
    noise = torch.Generator().manual_seed(0)
    templates = F.interpolate(torch.rand(1, 16, 4, 4, generator=noise), (32, 32), mode="bilinear")[0]
    mask = F.interpolate(torch.rand(4, 1, 4, 4, generator=noise), (64, 64), mode="bilinear").bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = template_weights(mask, templates, rule)
    assert torch.equal(found, template_weights(mask.float(), templates, rule))


def test_attention_in_bfloat16_is_within_two_hundredths_with_its_gradients() -> None:
    noise = torch.Generator().manual_seed(0)
    given = [torch.randn(1, n, d, generator=noise).bfloat16() for n, d in ((300, 16), (400, 16), (400, 64), (300, 64))]
    given[0] *= 2  # scores of up to 40

    def made(dtype: torch.dtype) -> list[Tensor]:
        q, k, v = (t.to(dtype).requires_grad_() for t in given[:3])
        out = attend(q, k, v, backend="picked")
        return [out, *torch.autograd.grad(out, (q, k, v), given[3].to(dtype))]

    for ours, exact in zip(made(torch.bfloat16), made(torch.float64), strict=True):
        assert (ours.double() - exact).norm() < 0.02 * exact.norm()
