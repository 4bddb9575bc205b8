"""The one training loop of all models: CPU, one GPU, several processes; resumable to the same weights.

Every random number of step k comes from the seed and k, and sample i of the run from the seed and i, so a run that was
stopped goes on to the weights of one that was not. Several processes share the global batch and train as one would
(`synced`; not mask_rcnn): gradients are averaged in one flat all-reduce a turn, batch norms, means over what the data
hold and random draws are those of the global batch, and one forward pass serves all players' turns.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.torch_io import (
    Checkpoint,
    compute_dtype,
    keep_memory,
    layout_of,
    load_checkpoint,
    pick_device,
    save_checkpoint,
)
from ahp_toolkit.occlusion.densities import parse
from ahp_toolkit.runtime.progress import Progress
from ahp_toolkit.storage import files
from ahp_toolkit.storage.lock import lock
from baselines.base import Baseline, Output, build_model, playing
from baselines.data.cache import Cache, build_cache
from baselines.data.samples import Draw, TrainData, check_leakage, collate, to_batch, worker_init
from baselines.layers.synced import counted, share_dropout, sync_batch_norm
from baselines.training import runlog, runs, trained
from baselines.training.job import Training
from baselines.training.judge import Ema, Judge
from baselines.training.recipes import Recipe, model_settings, optimizer_of, rate_factor
from baselines.training.record import resolved
from baselines.training.runlog import RunLog


def train(job: Training) -> Path:
    """Train, or go on with a run that was stopped; returns its run folder.

    Raises:
        UserError: for unknown names, data that leak, a loss that stops being a number.
    """
    recipe = job.resolved()
    settings = model_settings(job.model, job.task, recipe, job.settings)
    keep_memory()
    fabric = _fabric(job, recipe)
    fabric.launch()
    if fabric.world_size > 1 and not fabric.is_global_zero:
        fabric.barrier()  # the first process builds the cache
    cache = build_cache(job.root, recipe.cache_px, max(1, job.workers), job.quiet)
    if fabric.world_size > 1 and fabric.is_global_zero:
        fabric.barrier()
    check_leakage(job.root, cache)
    said = resolved(job, recipe, settings, cache, fabric)
    folder = (job.out or job.root) / "runs" / said["run_id"]
    if not fabric.is_global_zero:
        return _Loop(job, recipe, said, folder, cache, fabric).run()
    with lock(folder):
        return _Loop(job, recipe, said, folder, cache, fabric).run()


def _fabric(job: Training, recipe: Recipe) -> Fabric:
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    device = pick_device(job.device)
    here, nodes = job.devices, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun says how many
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // here
    if recipe.batch[job.task] % (here * nodes * job.accumulate):
        raise UserError(
            f"a batch of {recipe.batch[job.task]} cannot be shared by {here * nodes} processes x {job.accumulate} "
            "micro-batches; choose divisors of it, or another --set train.batch=N"
        )
    dtype = compute_dtype(device, recipe.precision)
    several = here * nodes > 1
    return Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" and device.index is not None and not several else here,
        num_nodes=nodes,
        strategy="ddp" if several else "auto",
        precision="bf16-mixed" if dtype == torch.bfloat16 else "32-true",
    )


class _Loop:
    """One run: model, players, data, log, state."""

    def __init__(
        self, job: Training, recipe: Recipe, about: dict[str, Any], folder: Path, cache: Cache, fabric: Fabric
    ) -> None:
        self.job, self.recipe, self.about, self.folder, self.fabric = job, recipe, about, folder, fabric
        self.first = fabric.is_global_zero
        self.steps, self.batch = recipe.steps[job.task] if about["trained"] else 0, recipe.batch[job.task]
        draw = Draw(parse(recipe.density), recipe.size, about["training"]["iou"], True, job.seed)
        self.data = TrainData(cache, draw)
        self.arch = {k: about[k] for k in ("model", "model_version", "task", "settings")}
        self.best: float | None = None
        self.found: dict[str, Any] = {}  # of the model and of val, for run.json; goes with the state
        self.seconds: list[float] = []

    def run(self) -> Path:
        """To the last step; at once when the run is finished."""
        if self.first:
            files.forget_unfinished(self.folder)
        state = runs.load_state(self.folder / "state.pt", self.about["key"], self.job.model)
        if self.first:
            trained.write(self.folder, self.data.cache, self.job.init)
        if state is not None and state["step"] >= self.steps:
            if self.first:
                self._stands(state)
            return self.folder
        with torch.random.fork_rng():
            self._prepare(state)
            start = int(state["step"]) if state is not None else 0
            if self.first:
                self._write_about("running")
            self.log = RunLog(self.folder, start, self.first, state and state.get("log"))
            with Progress(self.about["run_id"], self.steps, "step", self.job.quiet or not self.first) as bar:
                bar.skip(start)
                self._steps(start, bar)
            self.log.close()
        return self.folder

    def _stands(self, state: dict[str, Any]) -> None:
        """A finished run: what was cut short or damaged since is brought back, as far as its state holds it.

        Raises:
            UserError: when the best model is lost.
        """
        runlog.restore(self.folder, state.get("log", {}))
        try:
            load_checkpoint(self.folder / "last.pt", runs.MODEL_FORMAT)
        except UserError:
            weights = state["ema"] or state["net"]
            made = Checkpoint(self.arch, weights, {"step": self.steps, "run": self.about["run_id"]})
            save_checkpoint(self.folder / "last.pt", runs.MODEL_FORMAT, made)
        self._check_best(state)
        if "said" in state:
            self.found = state["said"]
            self._write_about("done", self.steps)

    def _check_best(self, state: dict[str, Any]) -> None:
        if self.first and state["best"] is not None:
            try:
                load_checkpoint(self.folder / "best.pt", runs.MODEL_FORMAT)
            except UserError as e:
                raise UserError(f"{e}; delete {self.folder / 'state.pt'} to train it again") from e

    def _prepare(self, state: dict[str, Any] | None) -> None:
        """The model with its players: from the state, or the weights of ``init``, or new, with its templates."""
        net = build_model(self.job.model, self.job.task, self.job.seed, **self.about["settings"])
        if self.job.init is not None:
            runs.take_weights(net, self.job.init, self.job.model, self.job.task)
        elif state is None and net.wants_masks:
            net.prepare(self.data.silhouettes(net.mask_people, net.mask_px), self.job.seed)
        if state is not None:
            self._check_best(state)
            runs.fill(net, state["net"], self.folder / "state.pt")
        self.found = dict(state.get("said", {}) if state is not None else {}) | net.facts()
        device = self.fabric.device
        self.layout = layout_of(device, compute_dtype(device, self.recipe.precision))
        net.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        share_dropout(net)
        self.net: Baseline = net
        if self.fabric.world_size > 1:
            self.net = sync_batch_norm(net, device)  # type: ignore[assignment]
            for value in self.net.state_dict().values():
                dist.broadcast(value, 0)
        turns = self.net.turns()
        hints = {t: optimizer_of(self.net, t, self.recipe) for t in turns}
        self.optimizers = {t: hints[t].build(list(p)) for t, p in turns.items()}
        self.rates = {t: h.lr for t, h in hints.items()}
        self.ema = Ema(self.net, self.job.ema) if self.job.ema else None
        if state is not None:
            for turn, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][turn])
            if self.ema is not None:
                runs.fill(self.ema.net, state["ema"], self.folder / "state.pt")
            self.best = state["best"]
        if self.job.compile:
            self.net.compile()
        self.judge = Judge(self.job.root, self.job.task, self.recipe, self.fabric) if self.first else None
        self.found["val_missing"] = self.judge.missing if self.judge is not None else 0

    def _loader(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the batches from step ``start`` on, in micro-batches."""
        share = self.batch // self.fabric.world_size
        mine = self.fabric.global_rank * share
        own = (range(k * self.batch + mine, k * self.batch + mine + share) for k in range(start, self.steps))
        context = multiprocessing.get_context("forkserver") if self.job.workers else None
        if context is not None:
            context.set_forkserver_preload(["baselines.data.samples"])
        return iter(
            DataLoader(
                self.data,
                batch_size=share // self.job.accumulate,
                sampler=itertools.chain.from_iterable(own),  # type: ignore[arg-type]
                num_workers=self.job.workers,
                collate_fn=collate,
                worker_init_fn=worker_init,
                multiprocessing_context=context,
                pin_memory=self.fabric.device.type == "cuda",
                prefetch_factor=4 if self.job.workers else None,
            )
        )

    def _steps(self, start: int, bar: Progress) -> None:
        if not self.steps:  # no parameters, nothing to learn
            self._judge(0)
            self._save(0)
        loader = self._loader(start)
        every = 1 if self.fabric.device.type == "cpu" else self.recipe.log_every
        for step in range(start, self.steps):
            begun = time.perf_counter()
            terms = self._step(step, [next(loader) for _ in range(self.job.accumulate)])
            self.log.add(step, terms)
            done = step + 1
            saving = done % self.recipe.save_every == 0 or done == self.steps
            judging = done % self.recipe.eval_every == 0 or done == self.steps
            if done % every == 0 or saving or judging:
                self.log.check(self.recipe)
            self.seconds.append(time.perf_counter() - begun)
            if done % self.recipe.log_every == 0:
                self.log.write(done, self.optimizers)
            if judging:
                self._judge(done)
            if saving:
                self._save(done)
            bar.update(1, self.log.note)
            if done == self.job.stop_at:
                return

    def _step(self, step: int, micro: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """One turn of every player. With one micro-batch its forward pass serves all turns."""
        self.net.train()
        torch.manual_seed(hashing.seed_of(self.job.seed, "step", step))
        factor = rate_factor(self.recipe, step, self.steps)
        batches = counted([to_batch(p, b, self.fabric.device, self.layout) for p, b in micro])
        shared: Output | None = None
        if len(batches) == 1:
            with self.fabric.autocast():
                shared = self.net(batches[0])
        said: dict[str, Tensor] = {}
        for turn, optimizer in self.optimizers.items():
            with playing(self.net, turn) as mine:
                optimizer.zero_grad(set_to_none=True)
                for batch in batches:
                    with self.fabric.autocast():
                        output = shared if shared is not None else self.net(batch)
                        terms = self.net.losses(batch, output, turn)
                        total = self.net.total(terms)
                    self.fabric.backward(total)
                    for name, value in terms.items():
                        said[name] = said.get(name, 0) + value.detach().float() / len(batches)
                self._average(mine, len(batches))
                for group in optimizer.param_groups:
                    group["lr"] = self.rates[turn] * factor
                optimizer.step()
        if self.ema is not None:
            self.ema.update(self.net)
        return said

    def _average(self, parameters: list[torch.nn.Parameter], micro: int) -> None:
        """The mean of the micro-batches' gradients, here summed, and of all processes', in one flat message.

        Divided after the backward pass, whose limits (`losses.no_louder`) are those of a micro-batch's own loss.
        """
        if micro > 1:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], float(micro))
        if self.fabric.world_size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.fabric.world_size
        parts = flat.split([g.numel() for g in grads])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p)

    def _judge(self, done: int) -> None:
        """Look at val (the first process alone); keep the best."""
        if self.judge is not None:
            net = self.ema.net if self.ema is not None else self.net
            found = self.judge(net)
            self.log.judged(done, found.values, found.picture)
            self.found["val"] = {"step": done, **found.values}
            if found.value is not None and (self.best is None or found.value > self.best):
                self.best = found.value
                self.found["best"] = {"step": done, "by": found.by, **found.values}
                runs.save_model(self.folder / "best.pt", self.arch, net, {"step": done, "run": self.about["run_id"]})
        if self.fabric.world_size > 1:
            self.fabric.barrier()

    def _save(self, done: int) -> None:
        if not self.first:
            return
        net = self.ema.net if self.ema is not None else self.net
        runs.save_model(self.folder / "last.pt", self.arch, net, {"step": done, "run": self.about["run_id"]})
        state = {
            "model": self.job.model, "model_version": self.about["model_version"],
            "step": done, "best": self.best, "net": self.net.state_dict(),
            "optimizers": {t: o.state_dict() for t, o in self.optimizers.items()},
            "ema": self.ema.net.state_dict() if self.ema is not None else {},
            "said": self._pace() | self.found, "log": self.log.state(),
        }  # fmt: skip
        self.log.flush()
        runs.save_state(self.folder / "state.pt", self.about["key"], state)
        self._write_about("done" if done == self.steps else "running", done)

    def _write_about(self, status: str, done: int = 0) -> None:
        said = self.about | self._pace() | self.found | {"status": status, "step": done}
        files.write_json(self.folder / "run.json", said)

    def _pace(self) -> dict[str, Any]:
        """The median time of a step, once the first tenth is behind."""
        steady = sorted(self.seconds[len(self.seconds) // 10 :])
        return {"seconds_per_step": steady[len(steady) // 2]} if steady else {}
