"""The figures of the speed board, by known answers."""

from __future__ import annotations

import torch

from baselines.base import GENERATOR, build_model
from baselines.inference import speed
from baselines.training.runs import Loaded
from tests.baselines.models.world import small

CPU = torch.device("cpu")


def loaded(name: str, task: str) -> Loaded:
    settings = small(name, task)
    net = build_model(name, task, 0, **settings).eval()
    return Loaded(net, name, task, {"size": 64}, "0" * 64, {})


def test_alive_counts_what_is_alive_at_once_and_no_views() -> None:
    x = torch.zeros(1000)
    with speed.Alive() as alive:
        y = x + 1  # 4,000 bytes
        z = y * 2  # and 4,000 more
        del y
        z.view(10, 100).add_(1)
        del z
        _ = x[:500] * 3
    assert alive.most == 8000 and alive.now == 2000


def test_flops_and_parameters_are_the_makers_and_the_feeders(monkeypatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    mask, content = loaded("human_deocclusion", "mask"), loaded("pix2pix", "content")
    first = speed.measure(mask, None, CPU, "fp32")
    own = speed.measure(content, None, CPU, "fp32")
    both = speed.measure(content, mask, CPU, "fp32")
    assert first["parameters"] == sum(p.numel() for p in mask.net.turns()[GENERATOR])
    assert first["parameters"] < sum(p.numel() for p in mask.net.parameters())
    for name in ("parameters", "flops"):
        assert both[name] == first[name] + own[name] > own[name] > 0
    assert both["peak_memory_mb"] * 1e6 > 4 * both["parameters"]


def test_flops_of_a_known_convolution() -> None:
    call = torch.nn.Conv2d(3, 8, 3, padding=1)
    with speed.FlopCounterMode(display=False) as counter:
        call(speed.noise(2, 64, CPU).image)
    assert counter.get_total_flops() == 2 * 2 * 64 * 64 * 8 * 3 * 9
