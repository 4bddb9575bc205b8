"""Training of all models by the one loop: CPU, one GPU, several processes; resumable to the same weights.

Sample i of a run depends on the seed and i alone. Several processes share the global batch and train as one would
(`synced`; not mask_rcnn): gradients are averaged in one flat all-reduce a turn; batch norms, means over what the data
hold and random draws are those of the global batch.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets import runlog
from ahp_toolkit.nets.checkpoints import Checkpoint, fill, load_checkpoint, save_checkpoint
from ahp_toolkit.nets.devices import compute_dtype, keep_memory, layout_of, pick_device
from ahp_toolkit.nets.loop import Loop, Player, Schedule, Terms, part_of, restore_state, save_state
from ahp_toolkit.nets.runlog import RunLog
from ahp_toolkit.occlusion.densities import parse
from ahp_toolkit.storage import files
from ahp_toolkit.storage.lock import lock
from baselines.base import Baseline, Batch, Output, build_model
from baselines.data.cache import Cache, build_cache
from baselines.data.samples import Draw, TrainData, check_leakage, collate, to_batch, worker_init
from baselines.layers.synced import counted, share_dropout, sync_batch_norm
from baselines.training import runs, trained
from baselines.training.job import Training
from baselines.training.judge import Ema, Judge
from baselines.training.recipes import Recipe, model_settings, optimizer_of
from baselines.training.record import resolved


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
    record = resolved(job, recipe, settings, cache, fabric)
    folder = (job.out or job.root) / "runs" / record["run_id"]
    with lock(folder) if fabric.is_global_zero else nullcontext():
        return ModelLoop(job, recipe, record, folder, cache, fabric).run()


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


class ModelLoop(Loop):
    """One run of a model: players, data, log, validation, state."""

    net: Baseline

    def __init__(
        self, job: Training, recipe: Recipe, record: dict[str, Any], folder: Path, cache: Cache, fabric: Fabric
    ) -> None:
        task, device = job.task, fabric.device
        schedule = Schedule(
            steps=recipe.steps[task] if record["trained"] else 0,
            save_every=recipe.save_every,
            log_every=recipe.log_every,
            check_every=1 if device.type == "cpu" else recipe.log_every,
            look_every=recipe.eval_every,
            cosine=recipe.cosine,
            warm=recipe.warm,
        )
        super().__init__(record["run_id"], schedule, job.seed, device, compute_dtype(device, recipe.precision))
        self.job, self.recipe, self.record, self.folder, self.fabric = job, recipe, record, folder, fabric
        self.first = fabric.is_global_zero
        self.batch = recipe.batch[task]
        self.data = TrainData(
            cache, Draw(parse(recipe.density), recipe.size, record["training"]["iou"], True, job.seed)
        )
        self.arch = {k: record[k] for k in ("model", "model_version", "task", "settings")}
        self.state_file = runs.file_of(folder, "state")
        self.best: float | None = None
        self.found: dict[str, Any] = {}  # facts of the model and figures of val, for run.json; saved with the state

    def run(self) -> Path:
        """Train to the last step; a finished run is only checked."""
        steps = self.schedule.steps
        if self.first:
            files.forget_unfinished(self.folder)
        state = runs.load_run_state(self.state_file, self.record["key"], self.job.model)
        if self.first:
            trained.write(self.folder, self.data.cache, self.job.init)
        start = int(state.meta["step"]) if state is not None else 0
        if state is not None and start >= steps:
            if self.first:
                self._repair(state)
            return self.folder
        with torch.random.fork_rng():
            self._prepare(state)
            if self.first:
                self._write_record("running")
            saved = state.meta["log"] if state is not None else None
            self.log = RunLog(f"{self.name}, recipe {self.recipe.name}", self.folder, start, self.first, saved)
            self.play(start, self.job.quiet or not self.first, self.job.stop_at)
            if not steps:  # no parameters, nothing to learn
                self.look(0)
                self.save(0)
            self.log.close()
        return self.folder

    def _repair(self, state: Checkpoint) -> None:
        """Write again what a finished run has lost since, as far as its state holds it.

        Raises:
            UserError: when the best model is lost.
        """
        runlog.restore(self.folder, state.meta.get("log", {}))
        last = runs.file_of(self.folder, "last")
        try:
            load_checkpoint(last, runs.MODEL_FORMAT)
        except UserError:
            weights = part_of(state, "average") or part_of(state, "net")
            made = Checkpoint(self.arch, weights, {"step": self.schedule.steps, "run": self.name})
            save_checkpoint(last, runs.MODEL_FORMAT, made)
        self._check_best(state)
        if "found" in state.meta:
            self.found = state.meta["found"]
            self._write_record("done", self.schedule.steps)

    def _check_best(self, state: Checkpoint) -> None:
        if self.first and state.meta["best"] is not None:
            try:
                load_checkpoint(runs.file_of(self.folder, "best"), runs.MODEL_FORMAT)
            except UserError as e:
                raise UserError(f"{e}; delete {self.state_file} to train it again") from e

    def _prepare(self, state: Checkpoint | None) -> None:
        """The model with its players: from the state, or the weights of ``init``, or new, with its templates."""
        net = build_model(self.job.model, self.job.task, self.job.seed, **self.record["settings"])
        if self.job.init is not None:
            runs.take_weights(net, self.job.init, self.job.model, self.job.task)
        elif state is None and net.wants_masks:
            net.prepare(self.data.silhouettes(net.mask_people, net.mask_px), self.job.seed)
        if state is not None:
            self._check_best(state)
            fill(net, part_of(state, "net"), self.state_file)
        self.found = dict(state.meta.get("found", {}) if state is not None else {}) | net.facts()
        self.layout = layout_of(self.device, self.dtype)
        net.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        share_dropout(net)
        self.net = net
        if self.fabric.world_size > 1:
            self.net = sync_batch_norm(net, self.device)  # type: ignore[assignment]
            for value in self.net.state_dict().values():
                dist.broadcast(value, 0)
        self.players = []
        for name, own in self.net.turns().items():
            chosen = optimizer_of(self.net, name, self.recipe)
            self.players.append(Player(name, own, chosen.build(own), chosen.lr))
        self.ema = Ema(self.net, self.job.ema) if self.job.ema else None
        if state is not None:
            restore_state(state, self.state_file, self.net, self.players, self.ema and self.ema.net)
            self.best = state.meta["best"]
        if self.job.compile:
            self.net.compile()
        self.judge = Judge(self.job.root, self.job.task, self.recipe, self.fabric) if self.first else None
        self.found["val_missing"] = self.judge.missing if self.judge is not None else 0

    def batches(self, start: int) -> Iterator[list[Batch]]:
        """This process's share of every step's batch."""
        share = self.batch // self.fabric.world_size
        mine, steps = self.fabric.global_rank * share, range(start, self.schedule.steps)
        own = (range(k * self.batch + mine, k * self.batch + mine + share) for k in steps)
        context = multiprocessing.get_context("forkserver") if self.job.workers else None
        if context is not None:
            context.set_forkserver_preload(["baselines.data.samples"])
        loader = iter(
            DataLoader(
                self.data,
                batch_size=share // self.job.accumulate,
                sampler=itertools.chain.from_iterable(own),  # type: ignore[arg-type]
                num_workers=self.job.workers,
                collate_fn=collate,
                worker_init_fn=worker_init,
                multiprocessing_context=context,
                pin_memory=self.device.type == "cuda",
                prefetch_factor=4 if self.job.workers else None,
            )
        )
        for _ in steps:
            micro = [next(loader) for _ in range(self.job.accumulate)]
            yield counted([to_batch(p, b, self.device, self.layout) for p, b in micro])

    def forward(self, batch: Batch) -> Output:
        """The model's own."""
        return self.net(batch)

    def terms(self, batch: Batch, output: Output, player: str) -> tuple[Terms, Tensor]:
        """The model's own, weighted."""
        found = self.net.losses(batch, output, player)
        return found, self.net.total(found)

    def gather(self, player: Player, micro: int) -> None:
        """The mean over micro-batches, then over all processes, in one flat message.

        It is taken after the backward pass, whose limits (`losses.limit_gradient`) are those of one micro-batch.
        """
        super().gather(player, micro)
        if self.fabric.world_size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in player.parameters]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.fabric.world_size
        for p, part in zip(player.parameters, flat.split([g.numel() for g in grads]), strict=True):
            p.grad = part.view_as(p)

    def stepped(self) -> None:
        """Average the weights."""
        if self.ema is not None:
            self.ema.update(self.net)

    @property
    def kept(self) -> Baseline:
        """The network that is judged and kept: the averaged one where there is one."""
        return self.ema.net if self.ema is not None else self.net

    def look(self, done: int) -> None:
        """Look at val (the first process alone); keep the best."""
        if self.judge is not None:
            found = self.judge(self.kept)
            self.log.looked(done, found.values, found.picture)
            self.found["val"] = {"step": done, **found.values}
            if found.value is not None and (self.best is None or found.value > self.best):
                self.best = found.value
                self.found["best"] = {"step": done, "by": found.by, **found.values}
                self._save_model("best", done)
        if self.fabric.world_size > 1:
            self.fabric.barrier()

    def save(self, done: int) -> None:
        """Write the last model, the state and the record."""
        if not self.first:
            return
        self._save_model("last", done)
        meta = {k: self.record[k] for k in ("key", "model", "model_version")}
        meta |= {"step": done, "best": self.best, "found": self._pace() | self.found, "log": self.log.state()}
        self.log.flush()
        save_state(self.state_file, meta, self.net, self.players, self.ema and self.ema.net)
        self._write_record("done" if done == self.schedule.steps else "running", done)

    def _save_model(self, which: str, done: int) -> None:
        meta = {"step": done, "run": self.name}
        runs.save_model(runs.file_of(self.folder, which), self.arch, self.kept, meta)

    def _write_record(self, status: str, done: int = 0) -> None:
        made = self.record | self._pace() | self.found | {"status": status, "step": done}
        files.write_json(self.folder / "run.json", made)

    def _pace(self) -> dict[str, Any]:
        pace = self.pace()
        return {} if pace is None else {"seconds_per_step": pace}
