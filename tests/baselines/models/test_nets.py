"""Known answers for the shared parts: convolutions, attention, templates, losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from baselines.layers import losses as L
from baselines.layers.attention import ContextualAttention, attend, pairwise
from baselines.layers.networks import (
    GatedConv2d,
    Masked,
    PartialConv2d,
    PatchCritic,
    SkipUNet,
    UNet,
    halvings,
    two_convs,
)
from baselines.layers.pconv import PartialUNet, partial_levels
from baselines.layers.pga import Guide, ParsingGuidedAttention, one_hot_parts
from baselines.layers.templates import fit_templates, template_weights
from tests.baselines.models.world import batch


def parameters(net: nn.Module) -> float:
    """Millions."""
    return sum(p.numel() for p in net.parameters()) / 1e6


def test_partial_convolution_by_hand() -> None:
    layer = PartialConv2d(1, 1, 3, bias=True)
    nn.init.ones_(layer.conv.weight)
    nn.init.constant_(layer.bias, 10.0)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 0, 0] = mask[0, 0, 1, 1] = 1
    y, seen = layer((x, mask))
    # the window around (1, 1) sees 0 and 5 of nine: (0 + 5) * 9 / 2 + 10; around (2, 2) only 5; around (3, 3) nothing
    assert y[0, 0, 1, 1] == 32.5 and y[0, 0, 2, 2] == 55
    assert y[0, 0, 3, 3] == 0 and seen[0, 0, 3, 3] == 0
    assert seen.sum() == 9  # the 3x3 neighbourhoods of both pixels, within the frame


def two_convolutions(layer: PartialConv2d, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The published form: a second full convolution, of ones, over the mask in all channels."""
    weight = torch.ones_like(layer.conv.weight)
    stride, padding = layer.conv.stride, layer.conv.padding
    seen = F.conv2d(masks, weight, stride=stride, padding=padding)
    y = layer.conv(x * masks) * (weight[0].numel() / seen.clamp(min=1e-6)) * (seen > 0)
    return y, (seen > 0).float()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2), (7, 2)])
def test_partial_convolution_on_one_channel_is_exact(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = PartialConv2d(5, 6, kernel, stride)
    a, b = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16)
    m, n = ((torch.rand(2, 1, 16, 16) > t).float() for t in (0.5, 0.9))
    y, seen = layer((a, m), (b, n))
    masks = torch.cat([m.expand(-1, 3, -1, -1), n.expand(-1, 2, -1, -1)], 1)
    expected, expected_seen = two_convolutions(layer, torch.cat([a, b], 1), masks)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen, expected_seen[:, :1])


def test_gated_convolution_by_hand() -> None:
    layer = GatedConv2d(1, 1, 1)
    with torch.no_grad():
        layer.conv.weight[:] = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1)
        layer.conv.bias.zero_()  # type: ignore[union-attr]
    y = layer(torch.tensor([[[[1.0, -1.0]]]]))
    expected = [2 / (1 + math.exp(-1)), (math.exp(-2) - 1) / (1 + math.exp(1))]
    torch.testing.assert_close(y.flatten(), torch.tensor(expected))


def test_gated_convolutions_keep_the_signal_alive() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 32, 32)
    y = nn.Sequential(*(GatedConv2d(16, 16) for _ in range(12)))(x)
    assert 0.1 < y.std((2, 3)).mean() < 3  # torch's default weights leave 1e-5


def test_published_parameter_counts() -> None:
    assert parameters(UNet(2, 32)) == pytest.approx(3.35, abs=0.005)
    assert parameters(SkipUNet(3, 3)) == pytest.approx(54.41, abs=0.01)  # pix2pix's unet_256
    assert parameters(PatchCritic(6)) == pytest.approx(2.77, abs=0.005)
    net = PartialUNet(5)
    assert parameters(net) == pytest.approx(25.8, abs=0.05)
    pga = [ParsingGuidedAttention(c, form="listing", kernel=3, skip=False) for c in net.channels.values()]
    assert parameters(net) + sum(map(parameters, pga)) == pytest.approx(55.6, abs=0.05)


@pytest.mark.parametrize(("size", "depth"), [(64, 6), (128, 7), (192, 6), (256, 8), (512, 8)])
def test_depth_follows_the_crop(size: int, depth: int) -> None:
    assert halvings(size) == depth


@pytest.mark.parametrize(("size", "depth"), [(64, 5), (128, 6), (256, 7), (512, 7)])
def test_the_painters_innermost_map_is_2x2_up_to_256_px(size: int, depth: int) -> None:
    assert partial_levels(size) == depth
    net = PartialUNet(5, width=4, levels=depth).eval()
    seen: dict[str, tuple[int, ...]] = {}

    def note(level: str, here: Masked) -> Masked:
        seen[level] = tuple(here[0].shape[2:])
        return here

    with torch.no_grad():
        made = net(torch.zeros(1, 5, size, size), torch.ones(1, 1, size, size), note)
    assert made.shape == (1, 3, size, size) and {"enc3", "enc5", "dec5", "dec3"} <= set(seen)
    assert [seen[k][0] for k in ("enc3", "enc5", "dec5", "dec3")] == [size // s for s in (8, 32, 16, 4)]
    assert seen[f"enc{depth}"][0] == max(2, size // 128)


def plain_eq6(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, invisible: Tensor) -> Tensor:
    """Eq. 6 with the whole matrix: rows visible, columns invisible, softmax over the rows (dim 0 of R)."""
    r = q @ k.transpose(1, 2)
    r = r.masked_fill(~visible[:, :, None], float("-inf")).softmax(1)
    return torch.nan_to_num(r).transpose(1, 2) @ v * invisible[:, :, None]


def relation(n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, n, d, dtype=dtype).mul(0.5).requires_grad_() for d in (8, 8, 24))
    return q, k, v, torch.rand(2, n) > 0.6, torch.rand(2, n) > 0.5


@pytest.mark.parametrize("backend", ["picked", "static"])
@pytest.mark.parametrize("n", [37, 1500])
def test_pga_attention_is_the_plain_formula_with_gradients(n: int, backend: str) -> None:
    q, k, v, visible, invisible = relation(n)
    weight = torch.randn(2, n, 24)
    found = pairwise(q, k, v, (visible, invisible), "two_way", backend)  # type: ignore[arg-type]
    expected = [plain_eq6(q, k, v, visible, invisible), plain_eq6(k, q, v, invisible, visible)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad((x * weight).sum(), (q, k, v), retain_graph=True) for x in (a, b))
        for x, y in zip(ours, theirs, strict=True):
            assert (x - y).abs().max() <= 1e-5 * y.abs().max().clamp(min=1)


def test_listing_has_both_directions_without_masks() -> None:
    q, k, v, visible, invisible = relation(50)
    energy = q @ k.transpose(1, 2)
    columns, rows = pairwise(q, k, v, (visible, invisible), "listing")
    torch.testing.assert_close(rows, energy.softmax(2) @ v, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns, energy.transpose(1, 2).softmax(2) @ v, rtol=1e-5, atol=1e-5)
    assert (rows - columns).abs().max() > 0.1  # R is not symmetric


def test_gradients_by_finite_differences() -> None:
    q, k, v, visible, _ = relation(6, torch.float64)
    assert torch.autograd.gradcheck(lambda *a: attend(*a, keys=visible, backend="picked"), (q, k, v))


@pytest.mark.parametrize("backend", ["picked", "static"])
@pytest.mark.parametrize(("visible", "invisible"), [(False, True), (True, False), (False, False)])
def test_nothing_visible_or_nothing_invisible_is_finite(visible: bool, invisible: bool, backend: str) -> None:
    q, k, v, *_ = relation(20)
    masks = [torch.full((2, 20), flag) for flag in (visible, invisible)]
    found = sum(f.sum() for f in pairwise(q, k, v, masks, "two_way", backend))  # type: ignore[arg-type]
    assert found == 0
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(found, (q, k, v)))


def guide(count: int = 2, size: int = 16, hidden: bool = True) -> Guide:
    torch.manual_seed(2)
    labels = torch.randint(0, 20, (count, size, size))
    modal = (torch.rand(count, 1, size, size) > 0.5).float()
    invisible = (1 - modal) * (torch.rand(count, 1, size, size) > 0.5) * hidden
    return Guide(one_hot_parts(labels * modal[:, 0].long()), one_hot_parts(labels), modal, invisible)


@pytest.mark.parametrize("structure", ["fusion", "cascade"])
@pytest.mark.parametrize(("parts", "tokens"), [(True, False), (False, True), (True, True)])
def test_pga_streams(structure: str, parts: bool, tokens: bool) -> None:
    module = ParsingGuidedAttention(16, parts, tokens, structure)
    x = torch.randn(2, 16, 8, 8)
    assert module(x, guide()).shape == x.shape
    assert torch.isfinite(module(x, guide(hidden=False))).all()


def test_attention_begins_as_the_feature_with_its_streams_added() -> None:
    torch.manual_seed(0)
    x, here = torch.randn(2, 16, 16, 16), guide()
    for module in (ParsingGuidedAttention(16), ParsingGuidedAttention(16, structure="cascade")):
        assert module.tokens is not None
        torch.testing.assert_close(module.tokens.q.weight, module.tokens.k.weight)
    module = ParsingGuidedAttention(16, parts=False)
    with torch.no_grad():
        module.join.weight[:, 16:] = 0
    torch.testing.assert_close(module(x, here), x)


def test_contextual_attention_copies_the_right_patch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 32, 32)
    x[:, :, 6:18, 6:18] = x[:, :, 18:30, 16:28]  # what the hole and its rim show is elsewhere too, shifted by (12, 10)
    hole = torch.zeros(1, 1, 32, 32)
    hole[:, :, 8:16, 8:16] = 1
    filled = ContextualAttention()(x, hole)
    torch.testing.assert_close(filled[:, :, 8:16, 8:16], x[:, :, 20:28, 18:26], rtol=1e-3, atol=1e-3)
    everything = ContextualAttention()(x, torch.ones_like(hole))
    assert torch.equal(everything, torch.zeros_like(x))


def test_template_weights() -> None:
    templates = torch.zeros(3, 4, 4)
    templates[1], templates[2, :2] = 1, 1
    mask = F.interpolate(templates[2][None, None], scale_factor=8)
    # 8 of 16 cells differ from the empty and from the full template; none from itself
    expected = torch.tensor([[1 / math.sqrt(8), 1 / math.sqrt(8), 100.0]])
    torch.testing.assert_close(template_weights(mask, templates), expected)
    inner = template_weights(mask, templates, "softmax")
    torch.testing.assert_close(inner, torch.tensor([[0.0, 8.0, 8.0]]).softmax(1))


def test_templates_find_the_poses_in_order_of_their_people() -> None:
    poses = torch.zeros(3, 64, 64, dtype=torch.bool)
    poses[0, :32], poses[1, 32:], poses[2, :, :32] = True, True, True
    masks = poses[torch.tensor([0] * 2 + [1] * 9 + [2] * 5)]
    found = fit_templates(masks, keep=3, clusters=3, each=1)
    expected = F.avg_pool2d(poses[[1, 2, 0]].float()[:, None], 2)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(found, fit_templates(masks, keep=3, clusters=3, each=1))
    assert fit_templates(masks[:1], keep=4).shape == (4, 32, 32)
    with pytest.raises(UserError, match="amodal masks"):
        fit_templates(masks[:0])


def test_a_template_is_nobody_s_own_mask() -> None:
    torch.manual_seed(0)
    masks = torch.rand(60, 32, 32) < 0.5
    found = fit_templates(masks, keep=8, clusters=60)
    assert len(found.unique(dim=0)) == 3  # of twenty people each
    alone = fit_templates(masks, keep=60, clusters=60, each=1)
    assert len(alone.unique(dim=0)) == 60


def test_gram_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of two pixels
    expected = torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4
    torch.testing.assert_close(L.gram(x), expected)
    assert L.style_l1([x], [torch.zeros_like(x)]) == pytest.approx(17 / 16)
    shuffled = x.flip(3)  # the style does not know where things are
    assert L.style_l1([x], [shuffled]) == 0 and L.feature_l1([x], [shuffled]) > 0


def test_parsing_loss_counts_only_people_with_a_parsing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 20, 4, 4, requires_grad=True)
    labels = torch.randint(0, 20, (3, 4, 4))
    some = torch.tensor([True, False, True])
    expected = F.cross_entropy(logits[some], labels[some])
    torch.testing.assert_close(L.parsing_ce(logits, labels, some), expected)
    nobody = L.parsing_ce(logits, labels, torch.zeros(3, dtype=torch.bool))
    assert nobody == 0
    assert torch.equal(torch.autograd.grad(nobody, logits)[0], torch.zeros_like(logits))


@pytest.mark.parametrize("kind", ["bce", "log", "hinge", "lsgan"])
def test_adversarial_players_pull_apart(kind: str) -> None:
    game = L.Adversarial(kind)  # type: ignore[arg-type]
    good, bad = torch.full((2,), 0.8), torch.full((2,), -0.8)
    assert game.discriminator(good, bad) < game.discriminator(bad, good)
    assert game.generator(good) < game.generator(bad)
    with pytest.raises(UserError, match="bce, log, hinge, lsgan"):
        L.Adversarial("wgan")  # type: ignore[arg-type]


def test_log_form_is_the_papers() -> None:
    logits = torch.tensor([0.3, -1.2])
    torch.testing.assert_close(L.Adversarial("log").generator(logits), torch.log(1 - logits.sigmoid()).mean())


def test_vgg_says_which_weights_it_has(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert L.vgg16("random").label == "random" and L.vgg16("random/8").label == "random/8"
    wrong = tmp_path / "vgg16.pth"
    wrong.write_bytes(b"not weights")
    with pytest.raises(UserError, match="sha256"):
        L.vgg16(str(wrong))
    with pytest.raises(UserError, match="expected VGG16"):
        L.vgg16(str(tmp_path / "absent.pth"))


def test_style_weighs_about_the_same_in_a_narrow_vgg() -> None:
    b = batch(2)
    wide, narrow = (L.perceptual(L.vgg16(s), b.image, b.need("target") * 0.5)[1] for s in ("random", "random/8"))
    assert 1 / 4 < float(narrow / wide) < 4


def test_no_channel_of_a_head_dies() -> None:
    head, feature = two_convs(4, 8, 1), torch.rand(2, 4, 16, 16)
    with torch.no_grad():
        head[0].weight.copy_(-head[0].weight.abs())  # all that a ReLU by itself would see is negative
    (head(feature) * torch.rand(2, 1, 16, 16)).mean().backward()
    assert (head[0].weight.grad.flatten(1).norm(dim=1) > 0).all()
