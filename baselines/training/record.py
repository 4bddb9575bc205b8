"""The record of a training run before it starts: its name, its key, and all that its weights depend on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from lightning.fabric import Fabric

from ahp_toolkit.core import hashing
from ahp_toolkit.storage import files
from baselines.base import MODELS
from baselines.data.cache import Cache
from baselines.data.initial import initial_iou
from baselines.layers.losses import found_here
from baselines.training import runs
from baselines.training.job import Training
from baselines.training.recipes import Recipe, own_model
from baselines.training.settings import aids_of

Json = dict[str, Any]


def record_of(job: Training, recipe: Recipe, settings: Json, cache: Cache, fabric: Fabric) -> Json:
    """What goes into run.json; ``key`` holds all that the weights depend on.

    ``aids`` lists the shared settings that are not as the model's paper has them, ``in_paper`` whether the paper
    compares the model, ``trained`` whether it has parameters.

    Raises:
        UserError: when the build has no train split, or ``job.init`` no weights.
    """
    digests = runs.splits_digests(job.root)
    init, own = init_digest(job), options(job)
    recipe_values = asdict(replace(recipe, save_every=0))
    plugin, made = MODELS.get(job.model), own_model(job.model, job.task)
    version = plugin.VERSION
    what = [job.model, version, job.task, settings, recipe_values, job.seed, cache.digest]
    key = hashing.digest_value([*what, digests.get("train"), init, own])
    name = job.name or f"{job.model}-{job.task}-{job.recipe}-s{job.seed}-{key[:8]}"
    return {
        "run_id": name, "model": job.model, "model_version": version, "task": job.task,
        "paper": plugin.PAPER, "in_paper": getattr(plugin, "IN_PAPER", False), "trained": bool(made.turns()),
        "settings": settings, "aids": aids_of(made.settings, settings),
        "recipe": job.recipe, "recipe_values": asdict(recipe),
        "training": own, "iou_from": _iou(job)[1], "seed": job.seed,
        "init": str(job.init or ""), "init_digest": init, "key": key,
        "git": runs.git_revision(), "splits": digests, "cache": cache.digest, "versions": runs.versions(),
        "device": runs.device_name(fabric.device), "processes": fabric.world_size,
        "precision": str(fabric._precision.precision), "people": len(cache.humans),
        "people_with_parsing": cache.parsed, "occluders": len(cache.occluders),
    }  # fmt: skip


def resolved(job: Training, recipe: Recipe, settings: Json, cache: Cache, fabric: Fabric) -> Json:
    """`record_of` with the perceptual network of ``vgg="auto"`` settled in ``settings``.

    A begun run keeps its network, whether or not official weights are here now; ``vgg_asked`` says that the job left
    it open.

    Raises:
        UserError: as `record_of`.
    """
    if settings.get("vgg") != "auto":
        return record_of(job, recipe, settings, cache, fabric)
    here = fabric.broadcast(found_here())  # machines may differ, a run may not
    ways = (here, "random" if here == "torchvision" else "torchvision")
    records = [record_of(job, recipe, settings | {"vgg": w}, cache, fabric) | {"vgg_asked": "auto"} for w in ways]
    return next((r for r in records if _begun(job, r)), records[0])


def _begun(job: Training, record: Json) -> bool:
    folder = (job.out or job.root) / "runs" / record["run_id"]
    mark = folder / "run.json"
    return (
        runs.file_of(folder, "state").exists() and mark.exists() and files.read_json(mark).get("key") == record["key"]
    )


def options(job: Training) -> Json:
    """The options besides the recipe that decide the weights, as run.json's ``training``."""
    return {"ema": job.ema, "accumulate": job.accumulate, "iou": _iou(job)[0]}


def init_digest(job: Training) -> str:
    """The digest of the weights a run starts from; '' for new ones.

    Raises:
        UserError: when there are none in ``job.init``.
    """
    return hashing.digest_file(runs.weights_file(job.init)) if job.init else ""


def _iou(job: Training) -> tuple[float, str]:
    """The mean IoU of simulated initial masks, and its source: the job's own, else that of the build's frozen masks."""
    return (float(job.iou), "setting") if job.iou is not None else initial_iou(job.root)
