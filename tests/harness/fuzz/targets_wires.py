"""Checkpoints, and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from ahp_toolkit.core.errors import UserError
from tests.harness.fuzz import check, mutate
from tests.harness.fuzz.check import Outcome, Target


class Checkpoints(Target):
    """Model files, state files and networks' weights, whole, cut, and with other things in them."""

    name = "checkpoints"
    share = 0.1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import torch

        from ahp_toolkit.nets import torch_io

        self.io, self.torch = torch_io, torch
        self.path = folder / "best.pt"
        self.state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3, dtype=torch.float16)}
        self.arch = {"model": "deeplab", "task": "mask", "settings": {"size": 64, "encoder": "resnet18"}}
        self.whole = self.bytes_of({"format": "ahp-model-1", "arch": self.arch, "state": self.state, "meta": {"n": 1}})

    def bytes_of(self, value: Any) -> bytes:
        """A torch file."""
        sink = io.BytesIO()
        self.torch.save(value, sink, _use_new_zipfile_serialization=True)
        return sink.getvalue()

    def step(self, rng: Random, huge: bool) -> Outcome:
        self.path.write_bytes(mutate.flip(self.whole, rng) if rng.random() < 0.6 else self.odd(rng))
        try:
            made = self.io.load_checkpoint(self.path, "ahp-model-1")
            check.need(len(made.digest) == 64, "digest")
            self.io.fill(self.torch.nn.Linear(2, 3), made.state, self.path)
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return Outcome()

    def odd(self, rng: Random) -> bytes:
        """A torch file that holds other values than ours."""
        torch = self.torch
        one = torch.zeros(1)
        tensors = [one.expand(10**9), one.to_sparse(), torch.empty(2, device="meta"), torch.tensor(3), one.bool(), 5]
        tensors += [None, torch.nn.Parameter(one), torch.zeros(2, 0), one.as_strided((4, 4), (0, 0)), "x", [one]]
        state: Any = {**self.state, rng.choice(("weight", "b", 3, "")): rng.choice(tensors)}
        said: Any = {"format": "ahp-model-1", "arch": dict(self.arch), "state": state, "meta": {}}
        said[rng.choice(list(said))] = rng.choice((said["state"], *mutate.VALUES))
        if rng.random() < 0.3:
            said["arch"] = {rng.choice(("model", "settings", "task", "x")): rng.choice(mutate.VALUES)}
        return self.bytes_of(said if rng.random() < 0.9 else rng.choice((state, [said], 3, "x")))


_WORDS = (
    "", " ", "-", "--", "---", "x", "é", "\udcff", "a\nb", "=", "coco=", "=x", "coco=.", "coco=missing", "zzz=.", "0",
    "-1", "1e999", "nan", "inf", "9" * 400, "x" * 300, "x/" * 3000, "../..", "s3://", "gs://x/y", "az://", "file:///",
    "%s", "{}", "$HOME", "~", "--help", "--out", "--root", "--split", "--seed", "--workers", "--source", "--version",
    "-h", "-q", "--no-such", "build", "bench", "review",
)  # fmt: skip


class CommandLine(Target):
    """``ahp`` with arguments of all kinds: it ends with a documented status, and a fault of ours is none of them."""

    name = "cli"
    share = 0.05

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import baselines.inference.predict  # noqa: F401  torch's libraries must be in place before memory is limited

        (folder / "empty").mkdir(exist_ok=True)
        (folder / "file").write_text("x")
        (folder / "sub.json").write_text('[{"sample_id": "a"}]')
        here = str(folder)
        empty, file = f"{here}/empty", f"{here}/file"
        self.lines = (
            ["build", "--source", f"coco={empty}", "--out", f"{here}/out", "--stop-after", "harvest", "--workers", "1"],
            ["build", "export", "--root", empty, "--format", "cocoa"],
            ["bench", "validate", f"{here}/sub.json", "--split", empty],
            ["bench", "score", f"{here}/sub.json", "--split", empty, "--out", f"{here}/boards"],
            ["bench", "report", "--boards", empty],
            ["bench", "predict", file, "--split", "val"],
            ["review", "import", file, "--root", empty],
            ["review", "export", "--root", empty, "--decisions", f"{here}/d.csv"],
            ["review", "status", "--root", empty, "--merge", "senior"],
            ["bench", "--help"],
        )

    def step(self, rng: Random, huge: bool) -> Outcome:
        args = list(rng.choice(self.lines))
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            at = rng.randrange(len(args) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                args.insert(at, rng.choice(_WORDS))
            elif kind == 1 and len(args) > 2:
                del args[min(at, len(args) - 1)]
            elif args:
                args[min(at, len(args) - 1)] = rng.choice(_WORDS)
        if args[:1] == ["review"] and not {"import", "export", "status"} & set(args[1:2]):
            args = ["review", "--help"]  # anything else would open the App
        status, said = self.run(args)
        check.need(
            status in (0, 1, 2) and "internal error" not in said and "Traceback" not in said, (args, said[-300:])
        )
        return Outcome("refused", {"status_2"}) if status == 2 else Outcome()

    def run(self, args: list[str]) -> tuple[int, str]:
        """(exit status, what it said)."""
        from ahp_toolkit.cli import main

        out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
        before, status = Path.cwd(), 0
        os.chdir(self.folder)  # relative paths in the words must not meet the checkout
        try:
            with (
                patch.object(sys, "argv", ["ahp", *args]),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(out),
            ):
                main.main()
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else 1
        finally:
            os.chdir(before)
        out.flush()
        return status, out.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
