"""A model's inference as captured CUDA graphs: at small batches the launches, not the arithmetic, take the time.

A graph replays one eager pass, kernel for kernel, over fixed buffers, so its answers are eager's. It asks that no shape
and no branch hangs on a value; `NoHostReads` finds out, and a model that reads one (mask_rcnn) runs eagerly.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode

from ahp_toolkit.nets.devices import precision_of
from baselines.base import Baseline, Batch, Result

Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]  # fn to (replay, its outputs' buffers)

MOST = 4  # graphs of one model: each keeps the memory of its batch
#: Operators after which the host knows a value, or whose output's shape is one.
_READS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::argwhere",
    "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_dim", "torchvision::nms",
}  # fmt: skip
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class HostRead(RuntimeError):
    """An operator whose shape or branch hangs on a value; its name."""


class NoHostReads(TorchDispatchMode):
    """Refuses operators that read values on the host. Outside inference mode, where it would see only whole calls."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operator.

        Raises:
            HostRead: when it is one of those.
        """
        name = func._schema.name
        by_mask = name in _INDEXED and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in _READS or by_mask:
            raise HostRead(f"{name} needs a value on the host")
        return func(*args, **(kwargs or {}))


def capture(fn: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture ``fn`` on the current CUDA device: (replay, the outputs that every replay fills again).

    Raises:
        RuntimeError: when CUDA refuses.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries make their plans and buffers before
        for _ in range(2):
            fn()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = fn()
    return graph.replay, made


def cast_once(net: Baseline, dtype: torch.dtype) -> Baseline:
    """A copy whose convolutions hold ``dtype``: what autocast would make of them in each pass. float32: ``net``."""
    if dtype == torch.float32:
        return net
    with torch.inference_mode(False), torch.no_grad():
        net = copy.deepcopy(net)
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and not is_parametrized(module):
                module.to(dtype)
    return net


class Graphs:
    """``predict`` of a model in eval mode; on CUDA a captured graph for each shape of batch that comes again.

    The first batch of a shape runs eagerly: the odd last one of a split is not worth a graph. Its weights must not
    change. ``how``: in place of CUDA's capture.
    """

    def __init__(self, net: Baseline, dtype: torch.dtype = torch.float32, how: Capture | None = None) -> None:
        self.net, self.dtype, self.how = net, dtype, how
        self.made: dict[tuple[Any, ...], _Captured | None] = {}  # None: seen once
        self.able = True

    def __call__(self, batch: Batch) -> Result:
        """The model's answer, in tensors of the caller's own."""
        key = tuple((n, t.shape, t.dtype) for n, t in _tensors(batch).items())
        able = self.able and (self.how is not None or batch.image.device.type == "cuda")
        if not able or (key not in self.made and len(self.made) >= MOST):
            return self._eager(batch)
        if key not in self.made:
            self.made[key] = None
            return self._eager(batch)
        found = self.made[key]
        if found is None:
            try:
                found = self.made[key] = self._capture(batch)
            except RuntimeError as e:  # CUDA says in many words that it cannot, or that its memory is full
                self.able, self.made = False, {}
                message = next(iter(str(e).splitlines()), "")
                logging.getLogger(__name__).warning(
                    "%s runs without a CUDA graph: %s", type(self.net).__name__, message
                )
                return self._eager(batch)
        return found(batch)

    def _eager(self, batch: Batch) -> Result:
        with precision_of(batch.image.device, self.dtype):
            return self.net.predict(batch)

    def _capture(self, batch: Batch) -> _Captured:
        with torch.inference_mode(False), torch.no_grad(), NoHostReads():
            self._eager(batch)
        if not any(self.made.values()):
            self.net = cast_once(self.net, self.dtype)
        return _Captured(self._eager, batch, self.how or capture)


class _Captured:
    """One graph with its input and output buffers."""

    def __init__(self, run: Callable[[Batch], Result], batch: Batch, how: Capture) -> None:
        self.inputs = {n: t.clone() for n, t in _tensors(batch).items()}
        held = Batch(**self.inputs)
        self.replay, result = how(lambda: run(held))
        self.outputs = _tensors(result)
        # an answer that is an input, such as the given mask, stays the caller's own
        same = {id(t): n for n, t in self.inputs.items()}
        self.same = {n: same[id(t)] for n, t in self.outputs.items() if id(t) in same}

    def __call__(self, batch: Batch) -> Result:
        for name, tensor in self.inputs.items():
            tensor.copy_(getattr(batch, name))
        self.replay()
        return Result(
            **{n: getattr(batch, self.same[n]) if n in self.same else t.clone() for n, t in self.outputs.items()}
        )


def _tensors(of: Batch | Result) -> dict[str, Tensor]:
    """Its fields that hold something."""
    values = {f.name: getattr(of, f.name) for f in dataclasses.fields(of)}
    return {n: t for n, t in values.items() if t is not None}
