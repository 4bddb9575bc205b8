"""What the pickle of a torch file may hold, looked at before torch's reader makes anything of it; nothing here is run.

torch's own ``weights_only`` reader runs no code either, but it calls ``bytearray(n)``, storages and sets for the file:
a few hundred bytes then take all memory. Here only what tensors and their state dicts are written with may be called.
"""

from __future__ import annotations

import io
import pickletools  # nosec B403
from pathlib import Path
from typing import IO, Any

import torch

#: Bytes of a pickle: a checkpoint's has some hundred a tensor; each could become an empty dict, of 64 bytes.
MAX_PICKLE = 4 * 2**20
_ZIP = b"PK\x03\x04"  # by these first bytes torch tells its two formats apart
_LEGACY = 5  # pickles in a row: magic number, protocol, system, value, keys of storages
_ORDERED = "collections.OrderedDict"
_CALLED = {_ORDERED, "torch.Size", "torch.device"} | {
    f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")
}
_KINDS = ("BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long",
          "Short")  # fmt: skip
#: Named in a tensor's description, never called: ``FloatStorage(n)`` would take memory too.
_NAMED = (
    {f"torch.{where}{kind}Storage" for where in ("", "cuda.") for kind in _KINDS}
    | {"torch.storage.UntypedStorage"}
    | {str(v) for v in vars(torch).values() if isinstance(v, torch.dtype)}
)
_KNOWN = _CALLED | _NAMED
#: The first operand stays on the stack.
_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
_OPCODES = _IN_PLACE | {
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
    "SHORT_BINSTRING", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
}  # fmt: skip


def walk_checkpoint(path: Path) -> None:
    """Walk the pickles of a torch file of either format.

    Raises:
        ValueError: for one that is too long, or holds what no state dict needs.
    """
    with path.open("rb") as f:
        zipped = f.read(len(_ZIP)) == _ZIP
        f.seek(0)
        head = b"" if zipped else f.read(MAX_PICKLE)
    if zipped:  # torch's own reader: another one could be shown another file
        head = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        if len(head) > MAX_PICKLE:
            raise ValueError(f"its pickle has {len(head)} bytes, at most {MAX_PICKLE} are read")
    stream = io.BytesIO(head)
    for _ in range(1 if zipped else _LEGACY):
        _walk(stream)


def _walk(stream: IO[bytes]) -> None:
    """One pickle on a stack of labels: a global's name, what a call was of, or nothing."""
    stack: list[str] = []
    memo: dict[Any, str] = {}
    marks: list[int] = []
    for op, arg, _ in pickletools.genops(stream):
        if op.name not in _OPCODES:
            raise ValueError(f"its pickle has a {op.name}, which tensors do not need")
        if op.name == "MARK":
            marks.append(len(stack))
            continue
        if op.name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
            continue
        takes = op.stack_before
        first = marks.pop() if pickletools.markobject in takes else len(stack)
        first -= takes.index(pickletools.markobject) if pickletools.markobject in takes else len(takes)
        if first < (marks[-1] if marks else 0):
            raise ValueError("its pickle takes more than it put down")
        taken, stack[first:] = stack[first:], []
        label = taken[0] if op.name in _IN_PLACE else ""
        if op.name == "GLOBAL":
            label = _known(str(arg))
        elif op.name == "REDUCE":
            label = f"{_called(taken[0])}()"
        elif op.name in ("BINGET", "LONG_BINGET"):
            label = memo[arg]
        elif op.name == "BUILD" and label != f"{_ORDERED}()":
            raise ValueError("its pickle sets the state of something else than an OrderedDict")
        stack += [label] * len(op.stack_after)


def _known(said: str) -> str:
    name = said.replace(" ", ".")
    if name not in _KNOWN:
        raise ValueError(f"its pickle names {name[:60]!r}, which tensors do not need")
    return name


def _called(name: str) -> str:
    if name not in _CALLED:
        raise ValueError(f"its pickle calls {name[:60]!r}, which tensors do not need")
    return name
