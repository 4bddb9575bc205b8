"""What run.json claims of a run: known keys alone, cut to a length, in range. Nobody but the author has checked it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ahp_toolkit.core.text import one_line
from benchmark.grading.records import Problems

#: Texts by key, with the most characters that are kept.
TEXTS = {
    "model": 80, "task": 20, "recipe": 80, "weights": 120, "device": 80, "fed_by": 120, "mask_run": 120,
    "made_by": 120, "split": 80, "dataset_digest": 64, "parts": 64, "precision": 20,
}  # fmt: skip
#: Speed by key: heading, unit, scale of the unit, and the range of a figure that can be true.
SPEED = {
    "parameters": ("parameters", "M", 1e-6, (0.0, 1e13)),
    "flops": ("FLOPs", "G", 1e-9, (0.0, 1e17)),
    "ms_per_person": ("ms / person", "ms", 1.0, (1e-6, 1e8)),
    "people_per_second": ("people / s", "1/s", 1.0, (1e-5, 1e9)),
    "peak_memory_mb": ("peak memory", "MB", 1.0, (0.0, 1e7)),
}
#: Every key that is read of run.json.
KEYS = (*TEXTS, "seed", "unfinished", "speed", "aids", "in_paper", "trained")
_AIDS, _AID = 8, 40  # settings besides the paper's own, and characters of one


def cleaned(run: Mapping[str, Any]) -> tuple[dict[str, Any], Problems]:
    """The usable claims of a run.json (or of the top of predictions.json), and those that were left out."""
    out: dict[str, Any] = {}
    problems = Problems()

    def leave_out(key: str, expected: str) -> None:
        problems.add("bad_claim", "run.json", key, f"expected {expected}; left out")

    for key, most in TEXTS.items():
        value = run.get(key)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
            shown = one_line(str(value)[: 4 * most]).strip()
            out[key] = shown if len(shown) <= most else f"{shown[: most - 1]}…"
        elif value not in (None, ""):
            leave_out(key, "a text")
    if isinstance(run.get("seed"), int) and abs(run["seed"]) < 2**63:
        out["seed"] = int(run["seed"])
    if isinstance(aids := run.get("aids"), list):
        out["aids"] = [one_line(a[:_AID]) for a in aids[:_AIDS] if isinstance(a, str) and a.strip()]
    out |= {key: run[key] for key in ("unfinished", "in_paper", "trained") if isinstance(run.get(key), bool)}
    speed = run.get("speed")
    if isinstance(speed, Mapping):
        out["speed"] = _speed(speed, leave_out)
    elif speed is not None:
        leave_out("speed", "an object")
    return out, problems


def _speed(speed: Mapping[str, Any], leave_out: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, (_, unit, _, (low, high)) in SPEED.items():
        value = number(speed.get(key))
        if value is not None and low <= value <= high:
            out[key] = value
        elif speed.get(key) is not None:
            leave_out(f"speed.{key}", f"a number from {low:g} to {high:g} ({unit} as SUBMIT.md says)")
    for key in ("device", "precision"):
        if isinstance(speed.get(key), str):
            out[key] = one_line(speed[key][: TEXTS[key]])
    return out


def described(claims: Mapping[str, Any]) -> str:
    """A row's small print: recipe, settings besides the paper's, and whether the paper compares the method."""
    parts = [claims["recipe"]] if "recipe" in claims else []
    if claims.get("trained") is False:
        parts.append("nothing trained")
    elif "aids" in claims:
        parts.append(f"with aids: {', '.join(claims['aids'])}" if claims["aids"] else "as published")
    if claims.get("in_paper") is False:
        parts.append("not in the paper")
    return f"{'; '.join(parts)} (self-reported)" if parts else ""


def number(value: object) -> float | None:
    """A finite number, else None."""
    try:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if good else None  # type: ignore[arg-type]
    except OverflowError:  # an integer that no float holds
        return None
