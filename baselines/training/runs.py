"""Run folders: the record of a run (``run.json``), its weights and its unfinished state; no code in them is run.

``best`` and ``last`` (.safetensors) hold a model (format ``ahp-model-2``), ``state`` what training needs to go on.
"""

from __future__ import annotations

import platform
import subprocess  # nosec B404
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.nets.checkpoints import Checkpoint, build_to_fit, fill, load_checkpoint, save_checkpoint
from ahp_toolkit.nets.devices import layout_of
from ahp_toolkit.nets.loop import load_state
from ahp_toolkit.storage import files, splits
from baselines.base import MODELS, Baseline, build_model
from baselines.inference.graphs import Graphs

MODEL_FORMAT = "ahp-model-2"
PACKAGES = (
    "ahp-toolkit", "lightning", "numpy", "opencv-python-headless", "scikit-learn", "segmentation-models-pytorch",
    "timm", "torch", "torchvision",
)  # fmt: skip


def split_digest(folder: Path) -> str:
    """The identity of a split, initial masks and crops included; the judge computes the same."""
    return splits.split_digest(splits.sample_pairs(folder))


def splits_digests(root: Path) -> dict[str, str]:
    """The digest of each split of a build that has samples.

    Raises:
        UserError: when the folder holds no train split.
    """
    folders = {name: root / "splits" / name for name in SPLITS}
    if not (folders["train"] / "humans").is_dir():
        raise UserError(f"{root}: expected a build with splits/train/humans, found none; run ahp build --out {root}")
    return {name: split_digest(f) for name, f in folders.items() if any(f.glob("part-*.parquet"))}


def git_revision() -> str:
    """The revision of the source tree, with ``+`` where it was changed; empty outside a checkout."""
    here = Path(__file__).parents[2]  # the user's own git, without a shell, with nothing that came from data
    try:
        lines = [
            subprocess.run(  # nosec B603 B607
                ["git", *args], cwd=here, capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for args in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", str(here)))
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return lines[0].strip() + ("+" if lines[1].strip() else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """The device's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


# --- models -------------------------------------------------------------------------------------------------------


def save_model(path: Path, arch: Mapping[str, Any], net: Baseline, meta: dict[str, Any]) -> None:
    """Write a trained model, atomically; ``arch``: its ``model`` name, ``model_version``, ``task`` and ``settings``."""
    save_checkpoint(path, MODEL_FORMAT, Checkpoint(dict(arch), net.state_dict(), meta))


def check_version(where: Path, name: str, version: object, how: str = "train it again") -> None:
    """Refuse what another definition of a model learnt, which may fit by chance; files from before versions say None.

    Raises:
        UserError: when ``version`` is not that of the model now.
    """
    its = 1 if version is None else version
    if not isinstance(its, int) or its != MODELS.get(name).VERSION:
        newer = isinstance(its, int) and its > MODELS.get(name).VERSION
        which, how = ("a newer", "update ahp-toolkit, or " + how) if newer else ("an earlier", how)
        raise UserError(f"{where}: trained by {which} version of {name}: {how}")


@dataclass(frozen=True)
class Loaded:
    """A trained model in eval mode with what it is; ``run`` is its run.json (empty for a lone file).

    ``graphs``: its captured inference on a GPU, by dtype.
    """

    net: Baseline
    name: str
    task: str
    settings: dict[str, Any]
    digest: str
    run: dict[str, Any]
    graphs: dict[torch.dtype, Graphs] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Side of the crops it was trained on, px."""
        return int(self.settings["size"])

    @property
    def label(self) -> str:
        """``name@weights-digest``."""
        return f"{self.name}@{self.digest[:12]}"


def file_of(run: Path, which: str) -> Path:
    """The file of a run folder: ``best``, ``last`` or ``state``."""
    return run / f"{which}.safetensors"


def weights_file(run: Path, which: str = "best") -> Path:
    """The model file of a run folder (the best by val, else the last), or the file itself.

    Raises:
        UserError: when there is none.
    """
    if run.is_file():
        return run
    for name in dict.fromkeys((which, "last")):
        if file_of(run, name).is_file():
            return file_of(run, name)
    raise UserError(f"{run}: expected a run folder with best or last.safetensors, found neither; train it first")


def load_model(run: Path, task: str | None = None, device: torch.device | str = "cpu", which: str = "best") -> Loaded:
    """A trained model from its run folder or model file.

    Args:
        task: what it must be for; None: any.

    Raises:
        UserError: when the file is missing, cut short, of another kind, for another task, or of another version.
    """
    path = weights_file(run, which)
    made = load_checkpoint(path, MODEL_FORMAT)
    name, its = str(made.arch.get("model")), str(made.arch.get("task"))
    if task is not None and its != task:
        raise UserError(f"{path}: expected a model for {task}, it is {name} for {its}")
    settings = made.arch.get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("size"), int):
        raise UserError(f"{path}: expected a model file with settings and their size; train it again")
    check_version(path, name, made.arch.get("model_version"))
    # its own weights come right after: nothing is fetched to be thrown away
    quiet = {k: type(v)() for k, v in settings.items() if k in ("pretrained", "encoder_weights")}
    net = build_to_fit(lambda: build_model(name, its, **{**settings, **quiet}), made.state, path)
    assert isinstance(net, Baseline)
    file = path.parent / "run.json"
    record = dict(files.read_json(file)) if file.exists() else {}
    net.eval().to(device, memory_format=layout_of(torch.device(device)))  # type: ignore[call-overload]
    return Loaded(net, name, its, dict(settings), made.digest, record)


def take_weights(net: Baseline, path: Path, name: str, task: str) -> None:
    """Start from the weights of another run (or model file) of the same model.

    Raises:
        UserError: when it is of another model, task or version, or does not fit.
    """
    file = weights_file(path)
    made = load_checkpoint(file, MODEL_FORMAT)
    theirs = f"{made.arch.get('model')} for {made.arch.get('task')}"
    if theirs != f"{name} for {task}":
        raise UserError(f"{file}: expected weights of {name} for {task}, got those of {theirs}")
    check_version(file, name, made.arch.get("model_version"))
    fill(net, made.state, file)


# --- unfinished runs ----------------------------------------------------------------------------------------------


def load_run_state(path: Path, key: str, model: str) -> Checkpoint | None:
    """The state of the unfinished run ``key`` of ``model``, or None when there is none.

    Raises:
        UserError: when the file is damaged, or belongs to another run.
    """
    state = load_state(path)
    if state is None or state.meta.get("key") == key:
        return state
    if state.meta.get("model", model) == model:
        how = "delete it to train it again, or take another --name"
        check_version(path, model, state.meta.get("model_version"), how)
    raise UserError(
        f"{path}: it is of a run with another model, recipe, seed or data; delete it or take another --name"
    )
