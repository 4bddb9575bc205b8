"""What a build of AHP's size, of ten million and of a billion humans costs, from what was measured and what is assumed.

A *human* is a candidate, a person worth asking about (AHP's table 1 counts 1,008,331); about one in eighteen is kept.
Everything here is linear in humans but what is said to be serial or to sit in one memory: those decide where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HUMANS = {"AHP": 1_008_331, "10 million": 10_000_000, "1 billion": 1_000_000_000}
HOUR = 3600.0


@dataclass(frozen=True)
class Rates:
    """CPU seconds, bytes and files a unit; the defaults are of one core of a busy two-core machine, 2026."""

    scan_s_a_human: float = 2.2e-5
    harvest_s_a_photo: float = 1e-3
    verify_s_a_photo: float = 8e-3
    photos_a_human: float = 0.45
    duplicates_s_a_photo: float = 5e-6
    duplicates_bytes_a_photo: float = 300.0
    segment_s_a_human: float = 1e-3
    network_s_a_human: float = 3.0
    synth_s_a_sample: float = 0.02
    materialize_s_a_sample: float = 0.03
    harvest_bytes_a_human: float = 400.0
    segment_bytes_a_human: float = 900.0
    splits_bytes_a_sample: float = 2000.0
    pixels_a_sample: float = 220_000.0
    files_a_sample: float = 0.25
    push_s_a_candidate: float = 1.4e-3
    mongo_bytes_a_candidate: float = 2500.0
    session_bytes_a_candidate: float = 1100.0  # 500 a candidate, 600 a word on it: allocated apart
    measured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assumed:
    """What this machine cannot measure: shares, GPU throughput, the fleet, people. Change it and plan again."""

    photo_bytes: float = 190_000.0  # Objects365: 367 GB for 1.92 million photos
    box_only: float = 0.8  # share of humans without a mask from their source
    kept: float = 56_599 / 1_008_331  # the paper's table 1
    samples_a_kept: float = 1.05  # one for each in train, three in val and test
    gpu_segment_a_s: float = 100.0  # DeepLabV3+ R101 at 512 px, one data-centre GPU with its decoders; not measured
    gpu_parse_a_s: float = 200.0  # HRNet-w48 at 473 px; not measured
    decision_s: float = 2.5
    triage_left: float = 0.5  # share of the candidates that people see
    cores: int = 64
    gpus: int = 4
    network_bytes_a_s: float = 1.25e9
    requests_a_s: float = 3500.0  # one prefix of an object store
    reviewers: int = 10
    review_hours_a_day: float = 6.0
    memory_bytes: float = 256e9


def _largest(found: Sequence[Mapping[str, Any]], stage: str, subject: str = "") -> Mapping[str, Any] | None:
    mine = [p for p in found if p["stage"] == stage and subject in ("", p["subject"])]
    return max(mine, key=lambda p: p["size"], default=None)


def _at(found: Sequence[Mapping[str, Any]], stage: str, like: Mapping[str, Any]) -> Mapping[str, Any] | None:
    same = [p for p in found if p["stage"] == stage and (p["subject"], p["size"]) == (like["subject"], like["size"])]
    return same[0] if same else None


def rates(found: Sequence[Mapping[str, Any]]) -> Rates:
    """Rates from the points of each stage; what was not measured keeps its default and is not named in ``measured``."""
    said: dict[str, float] = _of_annotations(found) | _of_humans(found)
    return Rates(**said, measured=tuple(sorted(said)))  # type: ignore[arg-type]


def _rate(
    found: Sequence[Mapping[str, Any]],
    stage: str,
    value: Callable[[Mapping[str, Any]], float],
    unit: str,
    slope_only: bool = False,
) -> float | None:
    """A value a unit of a stage: between its smallest and its largest size, so that what starting costs falls out.

    With one size it is the plain quotient; None for what stands on a large base (``slope_only``).
    """
    mine = sorted((p for p in found if p["stage"] == stage), key=lambda p: p["size"])
    if not mine:
        return None
    first, last = mine[0], mine[-1]
    of = [float(p["said"].get(unit, p["size"])) for p in (first, last)]
    if of[1] >= 2 * of[0]:
        return max(0.0, value(last) - value(first)) / (of[1] - of[0])
    return None if slope_only else value(last) / of[1]


def _of_annotations(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    said: dict[str, float] = {}
    if (h := _largest(found, "harvest", "objects365")) is not None:
        s, n = h["said"], max(1, h["said"]["humans"])
        scan = _at(found, "scan", h)
        said["photos_a_human"] = s["photos"] / n
        said["harvest_bytes_a_human"] = s["table_bytes"] / n
        said["harvest_s_a_photo"] = max(0.0, h["cpu_s"] - (scan["cpu_s"] if scan else 0.0)) / s["photos"]
        if (scan := _largest(found, "scan", "objects365")) is not None:
            said["scan_s_a_human"] = scan["cpu_s"] / (n * scan["size"] / h["size"])
    if (v := _largest(found, "verify")) is not None and (plain := _at(found, "harvest", v)) is not None:
        said["verify_s_a_photo"] = max(0.0, v["cpu_s"] - plain["cpu_s"]) / v["said"]["photos"]
    return said


#: rate -> (stage, what of a point, the unit it is for, whether one size says nothing)
_SLOPES: dict[str, tuple[Any, ...]] = {
    "duplicates_s_a_photo": ("duplicates", lambda p: p["cpu_s"], "photos"),
    "duplicates_bytes_a_photo": ("duplicates", lambda p: 1e6 * p["peak_mb"], "photos", True),
    "segment_s_a_human": ("segment", lambda p: p["cpu_s"], "humans"),
    "segment_bytes_a_human": ("segment", lambda p: p["said"]["table_bytes"], "humans"),
    "network_s_a_human": ("network", lambda p: p["cpu_s"], "humans"),
    "synth_s_a_sample": ("synth", lambda p: p["cpu_s"], "samples"),
    "splits_bytes_a_sample": ("synth", lambda p: p["said"]["table_bytes"], "samples"),
    "files_a_sample": ("synth", lambda p: p["said"]["files"], "samples"),
    "materialize_s_a_sample": ("materialize", lambda p: p["cpu_s"], "samples"),
    "pixels_a_sample": ("materialize", lambda p: p["said"]["pixel_bytes"], "samples"),
    "push_s_a_candidate": ("push", lambda p: p["cpu_s"], "candidates", True),
    "mongo_bytes_a_candidate": ("push", lambda p: p["said"]["mongo_disk"], "candidates", True),
}


def _of_humans(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    made = {name: _rate(found, *how) for name, how in _SLOPES.items()}
    return {name: value for name, value in made.items() if value is not None}


@dataclass(frozen=True)
class Bill:
    """One size: what it needs, how long the fleet takes for each resource, and which one is the longest."""

    humans: int
    kept: int
    cpu_hours: dict[str, float]
    gpu_hours: dict[str, float]
    storage_gb: dict[str, float]
    requests: dict[str, float]
    memory_gb: dict[str, float]
    people_hours: float
    days: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    machine_bottleneck: str = ""
    does_not_fit: tuple[str, ...] = ()


def bill(humans: int, r: Rates, a: Assumed) -> Bill:
    """The bill of one size."""
    photos, kept = humans * r.photos_a_human, humans * a.kept
    samples = kept * a.samples_a_kept
    cpu = {
        "scan": humans * r.scan_s_a_human,
        "harvest": photos * r.harvest_s_a_photo,
        "verify photos": photos * r.verify_s_a_photo,
        "duplicates": photos * r.duplicates_s_a_photo,
        "segment (masks known)": humans * r.segment_s_a_human,
        "synth": samples * r.synth_s_a_sample,
        "materialize": samples * r.materialize_s_a_sample,
        "review push": humans * a.triage_left * r.push_s_a_candidate,
    }
    gpu = {"segment": humans * a.box_only / a.gpu_segment_a_s, "parse": humans / a.gpu_parse_a_s}
    storage = {
        "photos": photos * a.photo_bytes,
        "tables": humans * (r.harvest_bytes_a_human + 2 * r.segment_bytes_a_human) + samples * r.splits_bytes_a_sample,
        "crops": samples * r.pixels_a_sample,
        "review database": humans * a.triage_left * r.mongo_bytes_a_candidate,
    }
    gets = photos * (1 + a.box_only + 1) + 4 * samples  # harvest, segment, parse; a human and an occluder, twice
    requests = {"photo GET": gets, "table PUT": samples * r.files_a_sample, "crop PUT": 2 * samples}
    memory = {
        "duplicates": photos * r.duplicates_bytes_a_photo,
        "a reviewer's session, not sliced": humans * a.triage_left * r.session_bytes_a_candidate,
    }
    people = humans * a.triage_left * a.decision_s
    plain = Bill(
        humans, round(kept), _hours(cpu), _hours(gpu), _giga(storage), requests, _giga(memory), people / HOUR
    )  # fmt: skip
    return _named(plain, a, cpu["scan"] + cpu["duplicates"], gets * a.photo_bytes + storage["crops"])


def _named(b: Bill, a: Assumed, serial_s: float, moved: float) -> Bill:
    days = {
        "CPU": sum(b.cpu_hours.values()) / a.cores / 24,
        "GPU": sum(b.gpu_hours.values()) / a.gpus / 24,
        "network": moved / a.network_bytes_a_s / HOUR / 24,
        "requests": sum(b.requests.values()) / a.requests_a_s / HOUR / 24,
        "serial steps": serial_s / HOUR / 24,
        "reviewers": b.people_hours / a.reviewers / a.review_hours_a_day,
    }
    machines = {k: v for k, v in days.items() if k != "reviewers"}
    over = tuple(f"{k}: {v:.0f} GB in one process" for k, v in b.memory_gb.items() if v * 1e9 > a.memory_bytes)
    return Bill(**_fields(b) | {
        "days": days,
        "bottleneck": max(days, key=days.__getitem__),
        "machine_bottleneck": max(machines, key=machines.__getitem__),
        "does_not_fit": over,
    })  # fmt: skip


def _fields(b: Bill) -> dict[str, Any]:
    return {name: getattr(b, name) for name in b.__dataclass_fields__}


def _hours(seconds: Mapping[str, float]) -> dict[str, float]:
    return {k: v / HOUR for k, v in seconds.items()}


def _giga(values: Mapping[str, float]) -> dict[str, float]:
    return {k: v / 1e9 for k, v in values.items()}


def plan(r: Rates, a: Assumed | None = None) -> dict[str, Any]:
    """The bills of all sizes with the rates and assumptions behind them, as JSON-like values."""
    a = a or Assumed()
    return {
        "rates": asdict(r),
        "assumed": asdict(a),
        "bills": {name: asdict(bill(n, r, a)) for name, n in HUMANS.items()},
    }


def rows(made: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The plan as a table of text: one column a size."""
    bills = list(made["bills"].values())
    out = [("", *made["bills"])]
    out.append(("humans kept", *(f"{b['kept']:,}" for b in bills)))
    for title, name in (
        ("CPU h", "cpu_hours"),
        ("GPU h", "gpu_hours"),
        ("GB", "storage_gb"),
        ("memory GB", "memory_gb"),
    ):
        keys = bills[0][name]
        out += [(f"{title}: {k}", *(_number(b[name][k]) for b in bills)) for k in keys]
        if title in ("CPU h", "GPU h", "GB"):
            out.append((f"{title}: all", *(_number(sum(b[name].values())) for b in bills)))
    out += [(f"requests: {k}", *(_number(b["requests"][k]) for b in bills)) for k in bills[0]["requests"]]
    out.append(("reviewers' hours", *(_number(b["people_hours"]) for b in bills)))
    out += [(f"days of the fleet: {k}", *(_number(b["days"][k]) for b in bills)) for k in bills[0]["days"]]
    out.append(("bottleneck", *(b["bottleneck"] for b in bills)))
    out.append(("bottleneck of the machines", *(b["machine_bottleneck"] for b in bills)))
    out.append(("does not fit", *("; ".join(b["does_not_fit"]) or "–" for b in bills)))
    return out


def _number(v: float) -> str:
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def text(made: Mapping[str, Any]) -> str:
    """The plan for a terminal."""
    table = rows(made)
    wide = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table)
