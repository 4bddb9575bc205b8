"""The GPU script's parts run, at tiny sizes on a CPU: nothing is said about time."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.harness.bench import gpu


def test_every_part_runs_and_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gpu.main(["--device", "cpu", "--quick", "--budget", "3600", "--out", str(tmp_path)])
    made = json.loads((tmp_path / "gpu.json").read_text())
    assert all(name.startswith("compile") for name in made["failed"]), made["failed"]
    assert {r["stage"] for part in ("both", "mask", "content") for r in made["parts"][part]} == {
        "both",
        "mask",
        "content",
    }
    assert all(r["equal"] for r in made["parts"]["both"])
    assert all(r["error"] < 1e-5 for r in made["parts"]["PGA attention"] if r["precision"] == "float32")
    assert not [r for name in ("small", "paper") for r in made["parts"][f"training, {name}"] if "failed" in r]
    assert "| stage | batch |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def broken(run: gpu.Run) -> None:
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr(gpu, "parts", lambda: {"one": broken, "matrix product, TFLOP/s": gpu.rates})
    gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)])
    made = json.loads((tmp_path / "gpu.json").read_text())
    assert (
        made["failed"] == {"one": "RuntimeError: out of memory"}
        and made["parts"]["matrix product, TFLOP/s"]["fp32"] > 0
    )
