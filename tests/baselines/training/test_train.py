"""Training: one seed, one set of weights; stopped and gone on; two processes as one; one clear line for a fault."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ahp_toolkit.core.crops import crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Prediction, Sample
from ahp_toolkit.nets.loop import Schedule, load_state
from ahp_toolkit.storage import parquet
from baselines.base import MODELS, build_model
from baselines.inference.predict import Options, predict_run
from baselines.layers.synced import counted
from baselines.training import runs
from baselines.training.recipes import RECIPES, model_settings
from baselines.training.train import Training, train
from tests.baselines.models.world import batch as world_batch

SMALL = {"width": 4, "critic_width": 4}


def job(build: Path, out: Path, **more) -> Training:
    base = {
        "model": "pix2pix",
        "task": "mask",
        "settings": SMALL,
        "steps": 6,
        "batch": 4,
        "save_every": 4,
        "device": "cpu",
    }
    return Training(build, out=out, quiet=True, **{**base, **more})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return runs.load_model(run, which="last").net.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(job(build, tmp_path_factory.mktemp("whole"), ema=0.9))


def test_a_run_says_what_it_was(whole: Path):
    said = json.loads((whole / "run.json").read_text())
    assert said["status"] == "done" and said["step"] == 6 and said["seconds_per_step"] > 0
    for name in ("git", "versions", "device", "recipe_values", "seed", "splits", "settings", "key"):
        assert name in said
    assert said["people"] == 12 and said["people_with_parsing"] == 8
    assert said["best"]["by"] == "iou_invisible" and 0 <= said["val"]["iou_amodal"] <= 1
    events = EventAccumulator(str(whole / "tensorboard")).Reload()
    assert "val/iou_invisible" in events.Tags()["scalars"] and events.Tags()["images"] == ["val"]
    assert list((whole / "pictures").glob("*.png")) and (whole / "best.safetensors").exists()
    with (whole / "val.csv").open() as f:
        assert [int(r["step"]) for r in csv.DictReader(f)] == [6]


def test_a_run_that_was_killed_goes_on_to_the_same_weights(build: Path, tmp_path: Path, whole: Path):
    stopped = train(job(build, tmp_path, ema=0.9, stop_at=5))  # its last state is of step 4
    assert load_state(stopped / "state.safetensors").meta["step"] == 4
    assert not same(weights(stopped), weights(whole))
    gone_on = train(job(build, tmp_path, ema=0.9))
    assert gone_on == stopped and same(weights(gone_on), weights(whole))
    a, b = (load_state(r / "state.safetensors") for r in (gone_on, whole))
    assert same(a.state, b.state) and a.meta["best"] == b.meta["best"]
    assert train(job(build, tmp_path, ema=0.9)) == gone_on  # nothing left to do


def test_the_seed_decides(build: Path, tmp_path: Path):
    a, b, c = (train(job(build, tmp_path / n, seed=s, steps=2)) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert same(weights(a), weights(b)) and a.name == b.name
    assert not same(weights(a), weights(c)) and a.name != c.name


def test_accumulated_micro_batches_and_content_train(build: Path, tmp_path: Path):
    run = train(job(build, tmp_path, task="content", steps=2, accumulate=2))
    assert runs.load_model(run, "content").task == "content"
    with pytest.raises(UserError, match="batch of 4 cannot be shared by 1 processes x 3"):
        train(job(build, tmp_path, accumulate=3))


@pytest.mark.parametrize(("model", "task"), [("initial", "mask"), ("mean_template", "mask"), ("nothing", "content")])
def test_a_model_without_parameters_is_a_run_at_once(build: Path, tmp_path: Path, model: str, task: str):
    run = train(job(build, tmp_path, model=model, task=task, settings={}))
    said = json.loads((run / "run.json").read_text())
    assert (said["status"], said["step"], said["in_paper"], said["trained"]) == ("done", 0, False, False)
    assert train(job(build, tmp_path, model=model, task=task, settings={})) == run
    out = predict_run(run, build / "splits" / "val", tmp_path / "p", options=Options(device="cpu", quiet=True))
    rows = list(parquet.read_records(out, Prediction))
    assert len(rows) == 6
    if task == "content":
        return
    for row, s in zip(rows, parquet.read_records(build / "splits" / "val", Sample), strict=True):
        initial, amodal = crop_mask(s.given.mask, s.crop, 256), row.amodal.decode()
        assert row.modal is None and (amodal >= initial).all() and ((amodal == initial).all() == (model == "initial"))


def test_a_run_says_which_aids_it_has(build: Path, tmp_path: Path):
    run = train(job(build, tmp_path, steps=1, settings={**SMALL, "carried": True, "hidden": 1 / 3}))
    said = json.loads((run / "run.json").read_text())
    assert said["aids"] == ["carried=true", "hidden=0.333"] and said["in_paper"] and "Isola" in said["paper"]


def test_the_pool_lies_in_the_frame_of_the_training_crops(build: Path, tmp_path: Path):
    run = train(job(build, tmp_path, model="ovsr", settings={**SMALL, "vgg": "random/8", "size": 128}, steps=1))
    net = runs.load_model(run, which="last").net
    pool = net.shapes(torch.arange(int(net.filled)))[:, 0].float()
    columns = (torch.arange(pool.shape[2]) + 0.5) / pool.shape[2] - 0.5
    away = (pool.amax(1) * columns).sum(1) / pool.amax(1).sum(1)  # middle of each one's columns, sides from the crop's
    assert len(pool) == 12 and away.abs().max() > 0.05 and away.std() > 0.03
    assert pool.shape[1:] == (128, 128)
    assert (pool[..., 1::2] != pool[..., ::2]).any((1, 2)).all()  # none is a smaller one enlarged, in stairs


def test_a_loss_that_is_no_number_is_named(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = MODELS.get("pix2pix").MaskModel
    honest = model.losses

    def broken(self, batch, output, turn):
        terms = honest(self, batch, output, turn)
        return {**terms, "l1": terms["l1"] * float("nan")} if turn == "generator" else terms

    monkeypatch.setattr(model, "losses", broken)
    with pytest.raises(UserError, match=r"loss term 'l1' became nan at step 0") as e:
        train(job(build, tmp_path))
    assert "\n" not in str(e.value)


def test_weights_of_others_are_refused(build: Path, tmp_path: Path, whole: Path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((whole / "best.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.safetensors: expected a checkpoint ahp-model-2, the file is damaged"):
        runs.load_model(cut)
    with pytest.raises(UserError, match="expected a model for content, it is pix2pix for mask"):
        runs.load_model(whole, "content")
    with pytest.raises(UserError, match="expected weights of segan for mask, got those of pix2pix for mask"):
        train(job(build, tmp_path, model="segan", settings={}, init=whole))
    with pytest.raises(UserError, match="the weights do not fit MaskModel"):
        train(job(build, tmp_path, settings={"width": 8, "critic_width": 4}, init=whole))
    with pytest.raises(UserError, match="expected a run folder with best or last.safetensors"):
        runs.load_model(tmp_path)
    other = train(job(build, tmp_path, name="mine", steps=2))
    with pytest.raises(UserError, match="another model, recipe, seed or data"):
        train(job(build, tmp_path, name="mine", steps=3))
    (other / "state.safetensors").write_bytes(b"not one")
    with pytest.raises(UserError, match="delete it to start the training again"):
        train(job(build, tmp_path, name="mine", steps=2))


def test_weights_of_an_earlier_version_of_their_model_are_refused(
    build: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
):
    assert json.loads((whole / "run.json").read_text())["model_version"] == MODELS.get("pix2pix").VERSION
    run = train(job(build, tmp_path, name="mine", stop_at=4))
    monkeypatch.setattr(MODELS.get("pix2pix"), "VERSION", 99)
    earlier = "trained by an earlier version of pix2pix: "
    for fails in (
        lambda: runs.load_model(whole),
        lambda: predict_run(whole, build / "splits" / "val", tmp_path / "p", options=Options(device="cpu")),
        lambda: train(job(build, tmp_path, init=whole)),
    ):
        with pytest.raises(UserError, match=rf"best\.safetensors: {earlier}train it again$"):
            fails()
    with pytest.raises(UserError, match=rf"state\.safetensors: {earlier}delete it to train it again, or "):
        train(job(build, tmp_path, name="mine"))
    assert train(job(build, tmp_path, steps=1)) != run


def test_val_samples_that_cannot_be_rendered_are_counted(build: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = Path(shutil.copytree(build, tmp_path / "b", ignore=shutil.ignore_patterns("runs")))
    said = json.loads((root / "build.json").read_text())
    (root / "build.json").write_text(json.dumps(said | {"roots": {"coco": str(root / "data")}}))
    photos = sorted({s.image.path for s in parquet.read_records(root / "splits" / "val", Sample)})
    (root / "data" / photos[0]).unlink()
    run = train(job(root, tmp_path, steps=1))
    assert json.loads((run / "run.json").read_text())["val_missing"] == 2 and (run / "best.safetensors").exists()
    (line,) = caplog.messages
    assert f"2 of {2 * len(photos)} samples cannot be rendered" in line and "\n" not in line
    for name in photos[1:]:
        (root / "data" / name).unlink()
    with pytest.raises(UserError, match="splits/val: 6 of 6 samples cannot be rendered .*look at the data roots"):
        train(job(root, tmp_path, steps=1, seed=1))


@pytest.mark.parametrize(
    "name", ["../../esc", "/tmp/esc", "a/b", "a\\b", "..", ".hidden", " a", "a\n", "a\0", "é" * 150]
)
def test_a_run_is_one_folder_below_runs(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="--name .*: expected the name of one folder") as e:
        job(tmp_path, tmp_path, name=name)
    assert "\n" not in str(e.value)
    assert job(tmp_path, tmp_path, name="my run-2.1_é").name


def test_fine_tuning_starts_from_the_weights(build: Path, tmp_path: Path, whole: Path):
    run = train(job(build, tmp_path, init=whole, steps=1, seed=1))
    near, fresh = weights(run), weights(train(job(build, tmp_path, steps=1, seed=1)))
    name = next(k for k in near if k.startswith("net") and k.endswith("weight"))
    old = runs.load_model(whole).net.state_dict()[name]
    assert (near[name] - old).abs().max() < 0.01 < (fresh[name] - old).abs().max()


TWO = """
import json, sys, torch
from pathlib import Path
import baselines.training.train as loop
from baselines.training import judge
from baselines.data.samples import to_batch
if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # in float32 the rounding of the sums grows from step to step
    wide = lambda v: v.double() if v.is_floating_point() else v
    loop.to_batch = judge.to_batch = lambda *given: to_batch(*given)._map(wide)
    for model, task, more in json.loads(sys.argv[3]):
        settings = {"size": 64, "width": 4, **more}
        loop.train(loop.Training(Path(sys.argv[1]), model, task, "paper", settings=settings, out=Path(sys.argv[2]),
                                 name=f"{model}-{task}", steps=5, batch=4, device="cpu", quiet=True))
"""

# not mask_rcnn, which draws proposals and takes means over them within torchvision
AS_ONE: list[tuple[str, str, dict[str, object]]] = [
    ("human_deocclusion", "mask", {"critic_width": 4, "templates": 0, "vgg": "random/8"}),  # a third has no parsing
    ("human_deocclusion", "content", {"critic_width": 4, "vgg": "random/8"}),
    ("pcnets", "mask", {}),
    ("segan", "content", {"critic_width": 4}),
    ("ovsr", "mask", {"critic_width": 4, "vgg": "random/8"}),
    ("pix2pix", "mask", {"critic_width": 4}),  # with dropout
]


def test_two_processes_train_as_one(build: Path, tmp_path: Path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    ours = os.environ | {"PYTHONPATH": str(Path(runs.__file__).parents[2])}  # this checkout, not the installed one
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for start, out in (([sys.executable], "one"), (launch, "two")):
        call = [*start, str(script), str(build), str(tmp_path / out), json.dumps(AS_ONE)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False, env=ours)
        assert done.returncode == 0, done.stderr[-3000:]
    for model, task, _ in AS_ONE:
        pair = [tmp_path / n / "runs" / f"{model}-{task}" for n in ("one", "two")]
        one, two = map(weights, pair)
        assert [json.loads((p / "run.json").read_text())["processes"] for p in pair] == [1, 2]
        assert max(float((one[k].float() - two[k].float()).abs().max()) for k in one) < 1e-5, (model, task)


@pytest.mark.parametrize(("model", "task"), [("human_deocclusion", "mask"), ("human_deocclusion", "content")])
def test_micro_batches_share_the_count_of_their_step(model: str, task: str):
    data = dataclasses.replace(world_batch(), has_parsing=torch.tensor([True, False, False, False]))
    halves = counted([data[:2], data[2:]])
    more = {"templates": 0} if task == "mask" else {}
    net = build_model(model, task, size=64, width=4, critic_width=4, vgg="random/8", **more).eval()
    said = [net.losses(b, net(b), "generator") for b in (data, *halves)]
    for name in said[0]:
        torch.testing.assert_close((said[1][name] + said[2][name]) / 2, said[0][name], rtol=1e-4, atol=1e-6)
    assert halves[1].counts is not None and halves[1][:1].counts is None


def test_recipes_fit_every_model():
    for recipe in RECIPES.values():
        for model in MODELS.names():
            for task in MODELS.get(model).TASKS:
                assert model_settings(model, task, recipe, {})["size"] == recipe.size
                assert recipe.steps[task] > 0 and recipe.batch[task] > 0
    with pytest.raises(UserError, match="no setting"):
        model_settings("pix2pix", "mask", RECIPES["debug"], {"widht": 3})
    assert Schedule(100, 1, cosine=RECIPES["paper"].cosine).factor(7) == 1.0
    factors = [Schedule(100, 1, cosine=RECIPES["debug"].cosine).factor(k) for k in range(100)]
    assert max(factors) == factors[5] == 1.0 and factors[-1] < 0.01 and factors[0] < 0.25


@pytest.mark.parametrize("recipe", RECIPES)
def test_cached_people_suffice_for_the_crops_of_any_size(recipe: str) -> None:
    own = RECIPES[recipe]
    assert Training(Path(), "pix2pix", "mask", recipe).resolved().cache_px == own.cache_px >= 1.75 * own.size
    for size in (64, 192, 256, 512):
        found = Training(Path(), "pix2pix", "mask", recipe, settings={"size": size}).resolved()
        assert found.size == size and found.cache_px >= max(own.cache_px, 1.75 * size)
        assert found.cache_px < max(own.cache_px, 1.75 * size) + 1


def test_people_are_cached_anew_for_larger_crops(build: Path, tmp_path: Path) -> None:
    run = train(job(build, tmp_path, settings={**SMALL, "size": 128}, steps=1, batch=1))
    said, plain = (json.loads((r / "run.json").read_text()) for r in (run, train(job(build, tmp_path, steps=1))))
    assert said["recipe_values"]["cache_px"] == 224 and (build / "cache" / "humans-224").is_dir()
    assert said["cache"] != plain["cache"] and said["key"] != plain["key"]
    with pytest.raises(UserError, match="size"):
        train(job(build, tmp_path, settings={**SMALL, "size": "large"}))


def test_a_run_is_known_by_all_its_settings_defaults_included() -> None:
    said = model_settings("ovsr", "mask", RECIPES["debug"], {"l1": 3})
    assert said == asdict(build_model("ovsr", "mask", **said).settings)  # as a model file is read
    assert (said["l1"], said["iterations"]) == (3.0, 2)
    assert json.dumps(said) == json.dumps(model_settings("ovsr", "mask", RECIPES["debug"], {"l1": 3.0}))


@pytest.mark.parametrize("name", ["", "mine"])
def test_the_perceptual_network_is_settled_at_the_first_start(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    from ahp_toolkit.cli.bench import runs as bench_steps
    from baselines.training import record

    open_ = {**SMALL, "vgg": "auto"}
    monkeypatch.setattr(record, "found_here", lambda: "random")
    stopped = train(job(build, tmp_path, stop_at=5, name=name, settings=open_))
    assert json.loads((stopped / "run.json").read_text())["settings"]["vgg"] == "random"
    monkeypatch.setattr(record, "found_here", lambda: "torchvision")  # official weights have come since
    assert train(job(build, tmp_path, name=name, settings=open_)) == stopped
    said = json.loads((stopped / "run.json").read_text())
    assert said["settings"]["vgg"] == "random" and said["status"] == "done"
    assert bench_steps.finished(job(build, tmp_path, name=name, settings=open_)) == stopped
    other = train(job(build, tmp_path, seed=1, steps=2, settings=open_))  # another run takes what there is
    assert json.loads((other / "run.json").read_text())["settings"]["vgg"] == "torchvision"
    with pytest.raises(UserError, match="another model, recipe, seed or data"):
        train(job(build, tmp_path, name=stopped.name, settings={**SMALL, "vgg": "random/8"}))
