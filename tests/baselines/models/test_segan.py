"""SeGAN's segmentor: the published weights of its regions, and ImageNet's weights when they are asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from ahp_toolkit.core.errors import UserError
from baselines.base import GENERATOR, Output, build_model
from baselines.models.segan import PUBLISHED, REGION_PX, SegmentorSettings, region_weights
from tests.baselines.models.world import batch, small


def test_a_pixel_counts_as_its_region_does_in_the_published_code() -> None:
    b = batch()
    x = torch.zeros_like(b.given).requires_grad_()
    model = build_model("segan", "mask", **small("segan", "mask"), **PUBLISHED)
    pull = torch.autograd.grad(model.losses(b, Output(amodal=x), GENERATOR)["mask"], x)[0].abs()
    around, seen, hidden = (pull[m > 0].unique() for m in (1 - b.need("amodal"), b.need("modal"), b.invisible))
    assert len(around) == len(seen) == len(hidden) == 1
    assert float(seen / around) == pytest.approx(5 / 27_000 * 37_000)
    assert float(hidden / around) == pytest.approx(3 / 12_000 * 37_000)


def test_the_scale_is_that_of_a_mean_and_equal_weights_are_the_plain_cross_entropy() -> None:
    mean = sum(n * w for n, w in zip(REGION_PX, region_weights(SegmentorSettings(**PUBLISHED)), strict=True)) / sum(
        REGION_PX
    )
    assert mean == pytest.approx(1)
    b, x = batch(), torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for plain in ({}, dict.fromkeys(PUBLISHED, 7.0)):
        model = build_model("segan", "mask", **small("segan", "mask"), **plain)
        found = model.losses(b, Output(amodal=x), GENERATOR)["mask"]
        torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(x, b.need("amodal")))
    for wrong, line in (({"visible": -1.0}, "0 or more"), (dict.fromkeys(PUBLISHED, 0.0), "must not all be 0")):
        with pytest.raises(UserError, match=line):
            build_model("segan", "mask", **wrong)


def test_the_segmentor_starts_from_imagenet_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    official = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: official)
    net = build_model("segan", "mask", **small("segan", "mask"), pretrained=True).net
    assert torch.equal(net.layer3[0].conv1.weight, official["layer3.0.conv1.weight"])
    assert torch.equal(net.conv1.weight[:, :3], official["conv1.weight"])
    assert torch.equal(net.conv1.weight[:, 3], official["conv1.weight"][:, 0])
    plain = build_model("segan", "mask", **small("segan", "mask")).net
    assert not torch.equal(plain.layer3[0].conv1.weight, official["layer3.0.conv1.weight"])
