"""The log of a training: named losses and val figures as CSV and for TensorBoard, and sample pictures."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files, images

CSVS = ("losses.csv", "val.csv")


class RunLog:
    """Collects loss terms on the device and writes their means; a run that goes on forgets what came after its state.

    Files: ``losses.csv`` and ``val.csv`` (step, then a column a name), ``tensorboard/``, ``pictures/``; none where it
    does not write. ``name``: of the training, for errors.
    """

    def __init__(
        self, name: str, folder: Path, start: int = 0, writes: bool = False, saved: dict[str, Any] | None = None
    ) -> None:
        self.name, self.folder, self.writes, self.note = name, folder, writes, ""
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []
        self._checked: list[dict[str, float]] = list((saved or {}).get("checked", []))
        self._board = None
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            if not isinstance(threading.excepthook, _Hush):
                threading.excepthook = _Hush(threading.excepthook)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
            restore(folder, saved or {})
            for name in CSVS:
                _cut(folder / name, start)

    def state(self) -> dict[str, Any]:
        """Both tables as they are now, and the terms that are in no row yet: what a resumed run needs."""
        tables = {n: (self.folder / n).read_text(encoding="utf-8") for n in CSVS if (self.folder / n).exists()}
        return {"checked": self._checked, **tables}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """The terms of a step (from 0), still on the device."""
        self._waiting.append((step, terms))

    def check(self) -> None:
        """Fetch the waiting terms from the device.

        Raises:
            UserError: when a term is not finite, naming the first and its step.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0][1])
        values = torch.stack([torch.stack([t[n] for n in names]) for _, t in self._waiting]).tolist()
        for (step, _), row in zip(self._waiting, values, strict=True):
            for name, value in zip(names, row, strict=True):
                if not np.isfinite(value):
                    raise UserError(
                        f"the loss term {name!r} became {value} at step {step} of {self.name}; its last state is from "
                        "before: lower the rates, or look at the data"
                    )
        self._checked += [dict(zip(names, row, strict=True)) for row in values]
        self._waiting.clear()

    def write(self, done: int, rates: dict[str, float]) -> None:
        """The means since the last call, as the row of step ``done``, with the players' ``rates``."""
        if self._waiting or not self._checked:
            return
        means = {n: float(np.mean([row[n] for row in self._checked])) for n in self._checked[0]}
        self._checked.clear()
        self.note = " ".join(f"{n} {v:.3g}" for n, v in list(means.items())[:6])
        if self.writes and self._board is not None:
            _append(self.folder / "losses.csv", {"step": done, **means})
            for name, value in means.items():
                self._board.add_scalar(f"loss/{name}", value, done)
            for player, rate in rates.items():
                self._board.add_scalar(f"rate/{player}", rate, done)

    def looked(self, done: int, values: dict[str, float], picture: NDArray[np.uint8] | None) -> None:
        """Figures of val, and a picture of samples."""
        if not (self.writes and values and self._board is not None):
            return
        _append(self.folder / "val.csv", {"step": done, **values})
        for name, value in values.items():
            self._board.add_scalar(f"val/{name}", value, done)
        if picture is not None:
            images.write_png(self.folder / "pictures" / f"step-{done:07d}.png", picture)
            self._board.add_image("val", picture, done, dataformats="HWC")

    def flush(self) -> None:
        """Write everything to disk."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the log."""
        if self._board is not None:
            self._board.close()


class _Hush:
    """Keeps the traceback of TensorBoard's thread off the terminal: the next write or flush raises the error again."""

    def __init__(self, before: Callable[[threading.ExceptHookArgs], Any]) -> None:
        self.before = before

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread" or not isinstance(args.exc_value, OSError):
            self.before(args)


def restore(folder: Path, saved: dict[str, Any]) -> None:
    """Bring tables that were cut short or lost back to what they were when the state was saved."""
    for name in CSVS:
        path, text = folder / name, saved.get(name)
        if text is not None and not (path.exists() and path.read_bytes().startswith(text.encode())):
            files.write_bytes(path, text.encode())


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(row), lineterminator="\n")  # as `_cut` and `restore` write it
        if new:
            writer.writeheader()
        writer.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})


def _cut(path: Path, start: int) -> None:
    """Drop the rows after step ``start``; what was cut short goes too, and with the last row the whole file."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [
        x for x in lines[1:] if x.endswith("\n") and x.partition(",")[0].isdigit() and int(x.partition(",")[0]) <= start
    ]
    if not kept or not start:
        path.unlink()
        return
    with files.atomic(path, "w") as f:
        f.writelines([*lines[:1], *kept])
