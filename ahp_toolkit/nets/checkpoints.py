"""Checkpoints: safetensors files whose metadata holds format, architecture and origin as JSON. No pickle is loaded.

Other people's weights come as torch files: `load_torch` is the one place that reads them, as tensors only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage.files import atomic

T = TypeVar("T")
#: The largest whole number in a checkpoint's architecture: sides, widths and counts of networks are far below.
MAX_NUMBER = 4096
HEADER = "ahp-toolkit"  # the one key of the metadata: two would be written in any order


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: how to build it (``arch``), its tensors, and what is known of its making (``meta``)."""

    arch: dict[str, Any]
    state: dict[str, Tensor]
    meta: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """sha256 hex of names, types, shapes and bytes of the tensors."""
        return state_digest(self.state)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 hex over names, types, shapes and bytes of tensors: the same for the same weights in any file."""
    h = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        h.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        h.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def short_name(plugin: str, digest: str) -> str:
    """``name@weights-digest``, twelve digits of it."""
    return f"{plugin}@{digest[:12]}"


def save_checkpoint(path: Path, kind: str, made: Checkpoint) -> None:
    """Write a checkpoint of the format ``kind``, atomically; the same checkpoint gives the same bytes."""
    state = {k: v.detach().cpu().contiguous() for k, v in made.state.items()}
    header = {"format": kind, "arch": made.arch, "meta": made.meta, "digest": state_digest(state)}
    data = safetensors.torch.save(state, {HEADER: json.dumps(header)})
    with atomic(path) as f:
        f.write(data)


def load_checkpoint(path: Path, kind: str) -> Checkpoint:
    """Read a checkpoint of the format ``kind``.

    Raises:
        UserError: when it is missing, cut short, changed since it was written, or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint {kind}, there is no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as f:
            header = json.loads((f.metadata() or {}).get(HEADER, "{}"))
            state = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  a file, not a dict
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0][:100]
        raise UserError(f"{path}: expected a checkpoint {kind}, the file is damaged or of another kind ({why})") from e
    if not isinstance(header, dict) or header.get("format") != kind:
        its = header.get("format") if isinstance(header, dict) else header
        raise UserError(f"{path}: expected a checkpoint {kind}, got {its!r:.60}")
    arch, meta = header.get("arch"), header.get("meta")
    if not isinstance(arch, dict) or not isinstance(meta, dict):
        raise UserError(f"{path}: expected a checkpoint {kind} with arch and meta, got {sorted(header)}")
    _check_arch(arch, path)
    made = Checkpoint(arch, state, meta)
    if made.digest != header.get("digest"):
        raise UserError(f"{path}: expected a checkpoint {kind}, the file is damaged: its weights have changed")
    return made


def load_torch(path: Path, expected: str) -> Any:
    """Load somebody else's torch file as tensors and plain values, without running code from it (``weights_only``).

    Args:
        expected: what the file should be, for the error line.

    Raises:
        UserError: when it is missing, cut short, or no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected {expected}, there is no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's reader raises anything at all on a damaged or hostile file
        why = (str(e).splitlines() or [type(e).__name__])[0][:100]
        raise UserError(f"{path}: expected {expected}, the file is damaged or of another kind ({why})") from e


def _check_arch(values: Mapping[str, Any], where: Path) -> None:
    """Only plain values, and no number that alone would fill the memory or the time."""
    for name, value in values.items():
        if isinstance(value, dict):
            _check_arch(value, where)
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise UserError(f"{where}: its architecture says {name}={value!r:.40}; at most {MAX_NUMBER} is built")
        elif isinstance(value, str) and ("hub:" in value or "dir:" in value or len(value) > 512):
            raise UserError(f"{where}: its architecture says {name}={value!r:.60}, which is fetched from elsewhere")
        elif not isinstance(value, (int, float, str, list, tuple, type(None))):
            raise UserError(f"{where}: its architecture says {name}, a {type(value).__name__}; expected a plain value")


def check_tensors(state: Mapping[str, Any], where: object) -> None:
    """Dense tensors that own their values: a view can claim terabytes over one number.

    Raises:
        UserError: naming the first that is none.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(f"{where}: expected {name[:80]!r} to be a dense tensor, got {type(value).__name__}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{where}: {name[:80]!r} claims {tuple(value.shape)}, the file does not hold as much")


def arch_of(cls: Callable[..., T], made: Checkpoint, where: object) -> T:
    """The architecture that a checkpoint names, as ``cls``.

    Raises:
        UserError: for fields that ``cls`` does not have, or values of another type than its defaults.
    """
    default = cls()
    wrong = [k for k, v in made.arch.items() if type(v) is not type(getattr(default, k, None))]
    if wrong:
        raise UserError(
            f"{where}: its architecture says {wrong[0]}={made.arch[wrong[0]]!r:.60}, which is not known here"
        )
    return cls(**made.arch)


def build_to_fit(make: Callable[[], torch.nn.Module], state: Mapping[str, Tensor], where: object) -> torch.nn.Module:
    """The network that ``make`` makes, with ``state`` in it; its memory is taken only when all shapes are the file's.

    Raises:
        UserError: when names or shapes differ, naming the first.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        skeleton = make()
    wanted = {k: tuple(v.shape) for k, v in skeleton.state_dict().items()}
    if wanted != {k: tuple(v.shape) for k, v in state.items()}:  # says what differs, in the words of `fill`
        fill(skeleton, {k: v.to("meta") for k, v in state.items()}, where)
    net = make()
    fill(net, state, where)
    return net


def fill(net: torch.nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Load tensors into a network, all of them.

    Raises:
        UserError: when names or shapes differ, naming the first.
    """
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as e:
        first = [*str(e).splitlines(), ""][1].strip()[:160]
        raise UserError(f"{where}: the weights do not fit {type(net).__name__} ({first})") from e
