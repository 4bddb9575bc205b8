"""What a training run says of itself before it starts: all that its weights depend on, and the name and key of it."""

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


def about(job: Training, recipe: Recipe, settings: Json, cache: Cache, fabric: Fabric) -> Json:
    """What goes into run.json; ``key`` holds all that the weights depend on.

    ``aids`` lists the shared settings that are not as the model's paper has them, ``in_paper`` whether the paper
    compares the model, ``trained`` whether it has parameters.

    Raises:
        UserError: when the build has no train split, or ``job.init`` no weights.
    """
    digests = runs.splits_digests(job.root)
    init, own = init_digest(job), options(job)
    recipe_said = asdict(replace(recipe, save_every=0))
    plugin, made = MODELS.get(job.model), own_model(job.model, job.task)
    version = plugin.VERSION
    what = [job.model, version, job.task, settings, recipe_said, job.seed, cache.digest]
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
    """`about` with the perceptual network of ``vgg="auto"`` settled, as ``settings`` says it from then on.

    A run that was begun keeps to its own, whether or not official weights have come or gone since; ``vgg_asked`` says
    that it was left open.

    Raises:
        UserError: as `about`.
    """
    if settings.get("vgg") != "auto":
        return about(job, recipe, settings, cache, fabric)
    here = fabric.broadcast(found_here())  # machines may differ, a run may not
    ways = (here, "random" if here == "torchvision" else "torchvision")
    said = [about(job, recipe, settings | {"vgg": w}, cache, fabric) | {"vgg_asked": "auto"} for w in ways]
    return next((a for a in said if _begun(job, a)), said[0])


def _begun(job: Training, said: Json) -> bool:
    folder = (job.out or job.root) / "runs" / said["run_id"]
    mark = folder / "run.json"
    return runs.file_of(folder, "state").exists() and mark.exists() and files.read_json(mark).get("key") == said["key"]


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
    """The mean IoU of simulated initial masks: as said, else that of the build's frozen ones; and whence it is."""
    return (float(job.iou), "said") if job.iou is not None else initial_iou(job.root)
