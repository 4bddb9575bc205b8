"""What users set is checked at birth: one line with the setting, what was expected and what came."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from baselines import commands
from baselines.base import MODELS, build_model
from baselines.training.job import Training
from baselines.training.recipes import RECIPES, model_settings
from baselines.training.settings import Between, aids_of, check_fields

NAN, HUGE = float("nan"), 10**400
TRAINING = [
    ("accumulate", 0, "an int of 1 or more"),
    ("batch", "abc", "an int of 1 or more"),
    ("ema", "abc", "a finite number of 0 or more and below 1"),
    ("ema", 2, "a finite number of 0 or more and below 1"),
    ("ema", 1, "below 1"),
    ("steps", 1.5, "an int of 1 or more"),
    ("steps", -5, "an int of 1 or more"),
    ("steps", True, "an int of 1 or more"),
    ("iou", 2, "a finite number above 0, at most 1"),
    ("iou", NAN, "a finite number above 0, at most 1"),
    ("precision", "fp8", "one of fp32, bf16, auto"),
    ("compile", 1, "a bool, got 1"),
    ("save_every", 0, "an int of 1 or more"),
]
MODEL = [
    ("human_deocclusion", "mask", "clusters", 0, "an int of 1 or more"),
    ("human_deocclusion", "mask", "templates", -1, "an int of 0 or more"),
    ("human_deocclusion", "mask", "threshold", 2, "a finite number above 0 and below 1"),
    ("human_deocclusion", "mask", "l_share", -1, "a finite number of 0 or more"),
    ("human_deocclusion", "mask", "adversarial", "gan", "one of bce, log, hinge, lsgan"),
    ("human_deocclusion", "content", "w", -1, "a finite number of 0 or more, at most 1"),
    ("human_deocclusion", "content", "pga_kernel", 2, "an int that is one of 1, 3"),
    ("pcnets", "mask", "two", 2, "a bool"),
    ("deeplab", "mask", "hidden", 1, "of 0 or more and below 1"),
    ("segan", "content", "loss", "rim", "one of hole, whole"),
    ("pcnets", "mask", "front", 2, "a finite number of 0 or more, at most 1"),
    ("pix2pix", "mask", "l1", NAN, "a finite number of 0 or more"),
    ("pix2pix", "mask", "l1", HUGE, "a finite number of 0 or more"),
    ("pix2pix", "mask", "critic_width", 0, "an int of 4 or more"),
    ("pix2pix", "mask", "critic_width", -4, "an int of 4 or more"),
    ("pix2pix", "mask", "size", "abc", "a positive multiple of 64"),
    ("pix2pix", "mask", "size", 0, "a positive multiple of 64"),
    ("ovsr", "mask", "pool", -1, "an int of 1 or more"),
    ("ovsr", "mask", "pool", 5000, "an int of 1 or more, at most 4096, got 5000"),  # nothing could load it again
    ("pix2pix", "mask", "size", 8192, "a positive multiple of 64, at most 4096"),
    ("human_deocclusion", "mask", "templates", 4097, "at most 4096"),
    ("ovsr", "mask", "iterations", 0, "an int of 1 or more"),
    ("mask_rcnn", "mask", "min_size", 0, "an int of 32 or more"),
    ("mask_rcnn", "mask", "backbone", "resnet5", "did you mean resnet50?"),
    ("mask_rcnn", "mask", "backbone", 5, "a text"),
    ("deeplab", "mask", "encoder", "foo", "known: resnet18, "),
    ("deeplab", "mask", "encoder", "tu-foo", "library's"),
    ("deeplab", "mask", "encoder", "mit_b0", "library's"),
    ("deeplab", "mask", "encoder_weights", "foo", "known: imagenet"),
]


@pytest.mark.parametrize(("name", "value", "expected"), TRAINING)
def test_a_wrong_training_setting_is_one_line(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as e:
        Training(Path("b"), "pix2pix", "mask", **{name: value})
    assert f"setting train.{name} must be " in str(e.value) and expected in str(e.value)
    assert str(e.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(("model", "task", "name", "value", "expected"), MODEL)
def test_a_wrong_model_setting_is_one_line(model: str, task: str, name: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as e:
        build_model(model, task, **{name: value})
    said = str(e.value)
    assert f"setting {name} must be " in said and expected in said and "got " in said


def test_an_encoder_that_cannot_be_dilated_says_so() -> None:
    with pytest.raises(UserError, match=r"encoder vgg11 cannot serve DeepLab v3\+ .*dilated"):
        model_settings("deeplab", "mask", RECIPES["debug"], {"encoder": "vgg11"})
    chosen = model_settings("deeplab", "mask", RECIPES["debug"], {"encoder": "tu-resnet18"})
    assert chosen["encoder"] == "tu-resnet18"


@pytest.mark.parametrize("pair", ["train.accumulate=0", "train.batch=abc", "train.ema=2", "w=-1", "b_l1=NaN", "size=a"])
def test_the_command_line_ends_in_that_line(pair: str, tmp_path: Path) -> None:
    call = ["human_deocclusion", "--task", "content", "--root", str(tmp_path), "--device", "cpu", "--set", pair]
    found = CliRunner().invoke(commands.train, call).exception
    assert isinstance(found, UserError) and pair.partition("=")[0] in str(found)


def test_every_default_and_every_recipe_is_in_its_range() -> None:
    for recipe in RECIPES.values():
        for name in MODELS.names():
            for task in MODELS.get(name).TASKS:
                model_settings(name, task, recipe, {})
    check_fields(Training(Path("b"), "pix2pix", "mask", steps=None, iou=1))


def test_every_number_of_a_model_has_a_range() -> None:
    """A new setting without one would be an internal error again."""
    from baselines.training.settings import Settings, _rules

    for name in MODELS.names():
        MODELS.get(name)
    classes, waiting = [Training], [Settings]
    while waiting:
        classes.append(cls := waiting.pop())
        waiting += cls.__subclasses__()
    for cls in classes:
        for f in fields(cls):
            kinds, ranges = _rules(cls)[f.name]
            if f.name != "seed" and {int, float} & set(kinds):
                assert ranges, f"{cls.__name__}.{f.name} says no range"


def test_a_range_in_words() -> None:
    words = [str(Between(0)), str(Between(0, 1)), str(Between(0, 1, True, True)), str(Between(64, step=64))]
    assert words == [
        "of 0 or more", "of 0 or more, at most 1", "above 0 and below 1", "that is a positive multiple of 64",
    ]  # fmt: skip
    assert Between(0, 1).allows(1) and not Between(0, 1, open_high=True).allows(1)
    assert Between(0).allows(0) and not Between(0, open_low=True).allows(0) and not Between(64, step=64).allows(100)


def test_a_run_says_its_aids() -> None:
    own = build_model("pix2pix", "mask").settings
    chosen = {"carried": True, "two": False, "hidden": 1 / 3, "l1": 10.0}
    assert aids_of(own, chosen) == ["carried=true", "hidden=0.333"] and not aids_of(own, asdict(own))
    paper = build_model("human_deocclusion", "mask").settings
    assert not aids_of(paper, asdict(paper)) and asdict(paper) | {"two": True, "carried": False} == asdict(paper)
    content = build_model("pcnets", "content").settings
    assert aids_of(content, {**asdict(content), "loss": "hole"}) == ["loss=hole"]


def test_the_command_line_takes_fractions() -> None:
    model, training = commands.settings_of(("hidden=1/3", "carried=true", "vgg=random/8", "train.ema=1/2"))
    assert model == {"hidden": 1 / 3, "carried": True, "vgg": "random/8"} and training == {"ema": 0.5}
