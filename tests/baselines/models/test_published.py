"""What the models' own papers and code say, where a slip would still train: widths, rates, weights, pools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.checkpoints import Checkpoint, save_checkpoint
from ahp_toolkit.segmenters import deeplab as segmenter
from baselines.base import GENERATOR, Baseline, Output, build_model
from baselines.layers.networks import GatedConv2d, SkipUNet, SNPatchCritic
from baselines.models.deepfillv2 import Refinement
from baselines.training import runs
from tests.baselines.models.world import batch, small


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def made(name: str, task: str, **settings: object) -> Baseline:
    return build_model(name, task, **{**small(name, task), **settings})


def test_deepfills_branches_have_the_published_widths() -> None:
    with torch.device("meta"):
        net = build_model("deepfillv2", "content")
        # the published refinement sees the picture alone, ours both masks too
        assert count(net.coarse, Refinement(3, 24)) == 4_052_478
        assert count(net.coarse, net.fine) == 4_057_278
    wide, plain = ([m.conv.out_channels // 2 // 24 for m in branch] for branch in (net.fine.before, net.fine.plain[:6]))
    assert wide == [1, 1, 2, 4, 4, 4] and plain == [1, 1, 2, 2, 4, 4]
    assert [m.positive for m in net.fine.before] == [False] * 5 + [True]


def test_a_positive_gated_convolution_by_hand() -> None:
    layer = GatedConv2d(1, 1, 1, positive=True)
    with torch.no_grad():
        layer.conv.weight[:] = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1)
    found = layer(torch.tensor([[[[1.0, -1.0]]]])).flatten()
    torch.testing.assert_close(found, torch.tensor([2 * torch.sigmoid(torch.tensor(1.0)).item(), 0.0]))


@pytest.mark.parametrize(("levels", "dropped"), [(6, [1]), (7, [1, 2]), (8, [1, 2, 3])])
def test_dropout_is_at_the_published_codes_decoder_levels(levels: int, dropped: list[int]) -> None:
    net = SkipUNet(3, 3, 4, levels)
    assert [k for k, level in enumerate(net.up) if any(isinstance(m, nn.Dropout) for m in level)] == dropped
    assert not any(isinstance(m, nn.Dropout) for m in SkipUNet(3, 3, 4, levels, dropout=False).modules())


def test_the_spectral_critic_has_no_biases() -> None:
    assert not [n for n, _ in SNPatchCritic(5, 4).named_parameters() if "bias" in n]


def rates_of(net: nn.Module) -> list[int]:
    return [
        m.dilation[0] for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and "aspp" in n and m.dilation[0] > 1
    ]


def test_deeplab_looks_as_far_as_the_paper() -> None:
    assert rates_of(made("deeplab", "mask")) == [6, 12, 18]
    assert rates_of(segmenter.net_of(segmenter.Arch("resnet18", 64))[0]) == [6, 12, 18]


def test_deeplabs_weights_of_other_rates_are_refused(tmp_path: Path) -> None:
    net, settings = made("deeplab", "mask", width=16), {**small("deeplab", "mask"), "width": 16}
    arch = {"model": "deeplab", "task": "mask", "settings": settings}
    runs.save_model(tmp_path / "new.safetensors", arch | {"model_version": 2}, net, {})
    assert runs.load_model(tmp_path / "new.safetensors").name == "deeplab"
    runs.save_model(tmp_path / "old.safetensors", arch, net, {})  # the same shapes
    with pytest.raises(UserError, match=r"old\.safetensors: trained by an earlier version of deeplab: train it again"):
        runs.load_model(tmp_path / "old.safetensors")
    runs.save_model(tmp_path / "next.safetensors", arch | {"model_version": 3}, net, {})
    with pytest.raises(UserError, match=r"next\.safetensors: trained by a newer version of deeplab: update "):
        runs.load_model(tmp_path / "next.safetensors")
    save_checkpoint(tmp_path / "seg.pt", "ahp-segmenter-1", Checkpoint({}, {}, {}))
    with pytest.raises(UserError, match="a checkpoint ahp-segmenter-2, got 'ahp-segmenter-1'"):
        segmenter.build(str(tmp_path / "seg.pt"), device="cpu")


def test_pcnets_picture_losses_are_in_the_published_units() -> None:
    weights = made("pcnets", "content").weights
    for name, published in (("hole", 6.0), ("valid", 1.0), ("tv", 0.1)):
        assert weights[name] == pytest.approx(published * 0.5 / 0.225)
    assert (weights["perceptual"], weights["style"], weights["adversarial"]) == (0.1, 250, 0.1)


def test_segans_l1_is_a_mean_over_the_whole_crop() -> None:
    b = batch()
    x = torch.zeros_like(b.need("target")).requires_grad_()
    model = made("segan", "content")
    found = model.losses(b, Output(image=x), GENERATOR)["l1"]
    torch.testing.assert_close(found, (b.need("target") * b.need("amodal")).abs().mean())
    pull = torch.autograd.grad(found, x)[0].abs()
    inside = (b.need("amodal") > 0).expand_as(pull)
    torch.testing.assert_close(pull[inside], torch.full_like(pull[inside], 1 / pull.numel()))
    assert not pull[~inside].any()


def discs(n: int, size: int) -> Tensor:
    """Round silhouettes, bool [n, size, size], drawn at that size."""
    at = (torch.arange(size) + 0.5) / size - 0.5
    return torch.stack([at[None] ** 2 + at[:, None] ** 2 < (0.2 + 0.2 * i / n) ** 2 for i in range(n)])


def test_ovsrs_pool_holds_silhouettes_of_its_own_size_bit_by_bit() -> None:
    model = made("ovsr", "mask", size=128, pool=4)
    assert (model.mask_px, model.mask_people) == (128, 8)
    shown = discs(6, 128)
    model.prepare(shown, 3)
    pool = model.shapes(torch.arange(4))
    assert pool.shape == (4, 1, 128, 128) and int(model.filled) == 4
    assert model.silhouettes.numel() * 8 == pool.numel()
    whose = [[torch.equal(p[0].bool(), s) for s in shown].index(True) for p in pool]
    assert len(set(whose)) == 4  # without replacement, unchanged
    steps = (pool[..., 1:] != pool[..., :-1]).sum((0, 1, 2))
    assert 0.4 < float(steps[1::2].sum() / steps.sum()) < 0.6  # masks of 64 px enlarged change at every second px only
    torch.manual_seed(0)
    assert model._drawn(torch.zeros(3, 1, 128, 128)).unique().tolist() == [0, 1]
    with pytest.raises(UserError, match=r"masks \[N, 128, 128\] of training people, got \[6, 64, 64\]"):
        model.prepare(discs(6, 64))


def test_a_pool_of_few_people_is_drawn_from_those_alone() -> None:
    model = made("ovsr", "mask", pool=16)
    model.prepare(discs(3, 64))
    drawn = model._drawn(torch.zeros(32, 1, 64, 64))
    assert {F.avg_pool2d(d, 64).item() for d in drawn} == {float(m.float().mean()) for m in discs(3, 64)}
