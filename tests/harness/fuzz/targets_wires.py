"""Checkpoints, and the command line."""

from __future__ import annotations

import contextlib
import io
import json
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

        from ahp_toolkit.nets import checkpoints

        self.io, self.torch = checkpoints, torch
        self.path = folder / "best.safetensors"
        self.state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3, dtype=torch.float16)}
        self.arch = {"model": "deeplab", "task": "mask", "settings": {"size": 64, "encoder": "resnet18"}}
        self.whole = self.bytes_of(self.arch, self.state, {"n": 1})

    def bytes_of(self, arch: Any, state: Any, meta: Any) -> bytes:
        """A checkpoint."""
        self.io.save_checkpoint(self.path, "ahp-model-2", self.io.Checkpoint(arch, state, meta))
        return self.path.read_bytes()

    def step(self, rng: Random, huge: bool) -> Outcome:
        kind = rng.random()
        data = self.whole if kind < 0.1 else mutate.flip(self.whole, rng) if kind < 0.6 else self.odd(rng)
        self.path.write_bytes(data)
        try:
            made = self.io.load_checkpoint(self.path, "ahp-model-2")
            check.need(len(made.digest) == 64, "digest")
            self.io.fill(self.torch.nn.Linear(2, 3), made.state, self.path)
        except UserError as e:
            check.one_line(e)
            return Outcome("refused", {"user_error"})
        return Outcome()

    def odd(self, rng: Random) -> bytes:
        """A safetensors file that holds other values than ours, or claims a wrong digest."""
        torch, io = self.torch, self.io
        one = torch.zeros(1)
        tensors = [torch.tensor(3), one.bool(), torch.zeros(2, 0), torch.zeros(4, 4), one]
        state: Any = {**self.state, rng.choice(("weight", "b", "")): rng.choice(tensors)}
        digest = io.state_digest(state) if rng.random() < 0.8 else "0"
        header: Any = {"format": "ahp-model-2", "arch": dict(self.arch), "meta": {}, "digest": digest}
        header[rng.choice(list(header))] = rng.choice(mutate.VALUES)
        if rng.random() < 0.3:
            header["arch"] = {rng.choice(("model", "settings", "task", "x")): rng.choice(mutate.VALUES)}
        text = json.dumps(header if rng.random() < 0.9 else rng.choice(([header], 3, "x")), default=str)
        return bytes(io.safetensors.torch.save(state, {io.HEADER: text}))


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
