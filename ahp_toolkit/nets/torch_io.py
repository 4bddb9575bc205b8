"""What every network plug-in shares: device and precision, checkpoints with digests, batches, pixels to tensors.

Importing this imports torch: import it from modules that already need a network. Nothing here depends on the number of
workers: batches are cut by position and a CPU runs them on one thread (see `steady`).
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.checkpoint_walk import walk_checkpoint
from ahp_toolkit.storage.files import atomic

T = TypeVar("T")
PRECISIONS = ("fp32", "bf16", "auto")
#: ImageNet's mean and standard deviation, RGB in [0, 1]: what the encoders' published weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The largest whole number in a checkpoint's architecture: sides, widths and counts of networks are far below.
MAX_NUMBER = 4096
_MALLOC = ((-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20))  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` (CUDA where there is one, else the CPU) or torch's own name of a device.

    Raises:
        UserError: for a device that torch does not know or this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as e:
        line = str(e).splitlines()[0]
        raise UserError(f"device {device!r} cannot be used here ({line}); take --device cpu or auto") from e
    return found


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is fast on the device: asked of the hardware, never assumed.

    On a CPU: AMX tiles or AVX-512's dot products of bfloat16; elsewhere torch emulates it, slower than float32. With
    them and channels last the paper's networks gain 1.4 to 2.3 times (performance §4); of networks as narrow as the
    ``debug`` recipe's the casts may cost more than that, so it says fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)


def compute_dtype(device: torch.device, precision: str = "fp32") -> torch.dtype:
    """float32 or bfloat16. ``auto`` takes bfloat16 only where the hardware has it.

    Raises:
        UserError: for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_bf16(device)) else torch.float32


def layout_of(device: torch.device, dtype: torch.dtype = torch.float32) -> torch.memory_format:
    """Channels last where convolutions are fastest so, on CUDA and in bfloat16; else contiguous."""
    last = device.type == "cuda" or dtype == torch.bfloat16
    return torch.channels_last if last else torch.contiguous_format


@contextmanager
def steady(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Inference that gives the same bytes at any worker count: no gradients; on a CPU one thread, restored after."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(), precision_of(device, dtype):
            yield
    finally:
        torch.set_num_threads(threads)


def precision_of(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype`` (float32: nothing is cast)."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers from ``seed`` inside; outside they go on as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def keep_memory() -> bool:
    """Tell glibc's malloc to keep freed tensors instead of giving them back to the kernel (performance §4).

    Without it a training step takes 150,000 page faults. Memory in use stays at its peak. Returns whether it was set:
    False on anything but glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(what, value) == 1 for what, value in _MALLOC)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size`` items."""
    return (items[i : i + size] for i in range(0, len(items), size))


def normalise(planes: Tensor) -> Tensor:
    """uint8 [B, C, H, W], C >= 3, to float32: RGB by ImageNet's mean and deviation, other planes to 0..1."""
    x = planes.float().div_(255.0)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    x[:, :3] = (x[:, :3] - mean) / std
    return x


def stack(planes: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """uint8 arrays [H, W, C] of one size to a uint8 tensor [B, C, H, W] (channels last in memory) on the device."""
    return torch.from_numpy(np.stack(planes)).to(device).permute(0, 3, 1, 2)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad [B, C, H, W] below and to the right to a height and width that ``multiple`` divides."""
    h, w = x.shape[-2:]
    below, right = -h % multiple, -w % multiple
    return functional.pad(x, (0, right, 0, below)) if below or right else x


def resize_map(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """float32 [h, w] (or [h, w, C]) to [height, width], linear, pixel centres as in core/crops."""
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


# --- weights ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: how to build it (``arch``), its tensors, and what is known of its making (``meta``)."""

    arch: dict[str, Any]
    state: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 hex of architecture-independent content: names, types, shapes and bytes of the tensors."""
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


def save_torch(path: Path, value: Any) -> None:
    """Write anything that ``weights_only`` loading takes, atomically."""
    with atomic(path) as f:
        told = _Told(f)
        try:
            torch.save(value, told)
        except RuntimeError as e:
            raise (told.error or e) from e


class _Told:
    """A file that remembers why it could not be written: torch's writer only says that it could not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write on."""
        try:
            return self._file.write(data)
        except OSError as e:
            self.error = e
            raise

    def flush(self) -> None:
        """Nothing: `atomic` does it."""


def save_checkpoint(path: Path, kind: str, made: Checkpoint) -> None:
    """Write one torch file ``{"format": kind, "arch", "state", "meta"}``, atomically."""
    state = {k: v.detach().cpu().contiguous() for k, v in made.state.items()}
    save_torch(path, {"format": kind, "arch": made.arch, "state": state, "meta": made.meta})


def load_torch(path: Path, expected: str) -> Any:
    """Load a torch file without running code from it (``weights_only``): the one place where weights are read.

    Args:
        expected: what the file should be, for the error line.

    Raises:
        UserError: when it is missing, cut short, no such file, or would unpack to more than it is.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected {expected}, there is no such file")
    try:
        _check_stored(path)
        walk_checkpoint(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's reader raises anything at all on a damaged or hostile file
        why = (str(e).splitlines() or [type(e).__name__])[0][:100]
        raise UserError(f"{path}: expected {expected}, the file is damaged or of another kind ({why})") from e


def _check_stored(path: Path) -> None:
    """torch stores tensors as they are; a packed one is not torch's and may unpack to a thousand times its size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as z:
            packed = [i.filename for i in z.infolist() if i.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0][:60]!r} in it is compressed, torch's files are not")
            if sum(i.file_size for i in z.infolist()) > path.stat().st_size:  # names may share their bytes
                raise ValueError("its parts are more than the file is")
            wrong = z.testzip()  # torch's own reader does not look at the check sums
            if wrong is not None:
                raise ValueError(f"{wrong[:60]!r} in it is not what was written")


def load_checkpoint(path: Path, kind: str) -> Checkpoint:
    """Read a checkpoint of ours.

    Raises:
        UserError: when it is missing, cut short, or of another kind.
    """
    said = load_torch(path, f"a checkpoint {kind}")
    if not isinstance(said, dict) or "format" not in said:
        raise UserError(f"{path}: expected a checkpoint {kind}, got a torch file without a format")
    if said["format"] != kind:
        raise UserError(f"{path}: expected a checkpoint {kind}, got {said['format']!r:.60}")
    parts: list[Any] = [said.get(name) for name in ("arch", "state", "meta")]
    if not all(isinstance(p, dict) and all(isinstance(k, str) for k in p) for p in parts):
        raise UserError(f"{path}: expected a checkpoint {kind} with arch, state and meta, got {sorted(map(str, said))}")
    arch, state, meta = parts
    _check_arch(arch, path)
    check_tensors(state, path)
    return Checkpoint(arch, state, meta)


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


def cached_on_hub(repo_id: str, filename: str = "model.safetensors", revision: str | None = None) -> bool:
    """Whether a file of the Hugging Face hub lies in the local cache; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, filename, revision=revision), str)


def want_pretrained(option: str, in_cache: bool) -> bool:
    """Resolve ``auto`` (only what is in the local cache), ``yes`` (fetch it) and ``no``.

    Raises:
        UserError: for another word.
    """
    if option not in ("auto", "yes", "no"):
        raise UserError(f"expected pretrained auto, yes or no, got {option!r}")
    return option == "yes" or (option == "auto" and in_cache)
