"""Every segmenter and parser says what it is, trains by its own recipe, and may come from another package."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode, encode_labels
from ahp_toolkit.core.records import Candidate, Flags, ImageRef, Neighbours
from ahp_toolkit.nets.recipe import Settings
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.segmenters import SEGMENTERS, base
from ahp_toolkit.stages.train_networks import How, trainable

EVERY = [pytest.param(r, name, id=name) for r in (SEGMENTERS, PARSERS) for name in r.names()]
TRAINED = [p for p in EVERY if p.values[0].get(p.values[1]).TRAINABLE]


@pytest.mark.parametrize(("registry", "name"), EVERY)
def test_a_plugin_says_what_it_is(registry, name: str) -> None:
    module = registry.get(name)
    assert all(hasattr(module, fact) for fact in registry.facts)
    assert isinstance(module.NEEDS_PIXELS, bool) and isinstance(module.TRAINABLE, bool)
    assert module.LICENCE and bool(module.WEIGHTS) == module.NEEDS_PIXELS
    assert module.TRAINABLE == hasattr(module, "PRESETS") == hasattr(module, "recipe") == hasattr(module, "KIND")


@pytest.mark.parametrize(("registry", "name"), TRAINED)
def test_a_trainable_plugin_gives_a_recipe_that_takes_a_step(registry, name: str) -> None:
    module = registry.get(name)
    assert {"debug", "full"} <= set(module.PRESETS) and all(isinstance(s, Settings) for s in module.PRESETS.values())
    debug = module.PRESETS["debug"]
    small = Settings(debug.encoder, 64, 2, 2, pretrained="no", width=64)
    recipe = module.recipe(small)
    assert recipe.kind == module.KIND and recipe.parsed == (registry is PARSERS) and not recipe.imagenet
    inside = np.zeros((80, 60), bool)
    inside[20:60, 20:40] = True
    image = ImageRef("toy/1", "toy", "1.png", 60, 80)
    parts = encode_labels(inside.astype(np.uint8))
    human = Candidate("toy/1#1", image, Box(20, 20, 40, 60), encode(inside), parts, Flags(), Neighbours())
    photo = np.full((80, 60, 3), 90, np.uint8)
    made = [recipe.cut([human])(photo, human, np.random.default_rng(k)) for k in range(2)]
    planes = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p, _ in made])
    target = torch.stack([torch.from_numpy(np.ascontiguousarray(t)) for _, t in made])
    assert planes.dtype == target.dtype == torch.uint8 and planes.shape[-2:] == target.shape[-2:] == (64, 64)
    loss = recipe.loss(recipe.net.train(), planes, target)
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None for p in recipe.net.parameters())
    assert hasattr(recipe.ready(recipe.net, torch.device("cpu")), "name")


def test_what_is_not_trained_here_is_refused_with_what_is() -> None:
    with pytest.raises(UserError, match="source_mask: this segmenter is not trained here; .*centermask, deeplab"):
        trainable(SEGMENTERS, "source_mask")
    assert How().settings == "debug"


OUTSIDE = """
import numpy as np
from ahp_toolkit.segmenters.base import Segmentation
NEEDS_PIXELS, TRAINABLE, WEIGHTS, LICENCE = True, False, "none: it takes the whole box", "MIT"
class Whole:
    name = "whole_box@1"
    def __call__(self, prompts):
        return [Segmentation(np.ones(p.pixels.shape[:2], bool), 0.5) for p in prompts]
def build(weights=None, device="auto", batch_size=8):
    return Whole()
"""


def test_a_segmenter_of_another_package_is_one_of_the_registry(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_whole.py").write_text(OUTSIDE)
    (tmp_path / "my_poor.py").write_text("TRAINABLE = False\n")
    entries = [importlib.metadata.EntryPoint(n, f"my_{n}", SEGMENTERS.group) for n in ("whole", "poor")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries * (group == SEGMENTERS.group))
    monkeypatch.syspath_prepend(tmp_path)
    assert "whole" in SEGMENTERS.names() and not SEGMENTERS.get("whole").TRAINABLE
    prompt = base.Prompt(np.zeros((4, 3, 3), np.uint8), Box(0, 0, 3, 4))
    assert base.built("whole", None, stamp=str(tmp_path))([prompt])[0].mask.sum() == 12
    with pytest.raises(UserError, match="my_poor does not define build, NEEDS_PIXELS, WEIGHTS, LICENCE"):
        SEGMENTERS.get("poor")
    for name in ("my_whole", "my_poor"):
        sys.modules.pop(name, None)
