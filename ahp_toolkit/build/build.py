"""One build from start to end, and what is made of it afterwards: page, exports, pixels, trained helpers."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ahp_toolkit.build import flow, training
from ahp_toolkit.build import splits as flow_splits
from ahp_toolkit.build.checks import check_files, check_networks, check_occluders, check_place
from ahp_toolkit.build.flow import Options, Say
from ahp_toolkit.build.splits import Synthesis
from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.decisions.merge import Merge, logs_of
from ahp_toolkit.parsers import PARSERS
from ahp_toolkit.runtime import dry
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.engines import Engine
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.stages.harvest import Rules
from ahp_toolkit.stages.review import SplitSizes
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage.locations import place

PACKAGES = ("ahp-toolkit", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pycocotools", "simplejpeg", "torch")


def options_from(given: dict[str, Any]) -> tuple[Options, Synthesis]:
    """The command line's options as records; what can be told wrong of them is told at once."""
    roots = {name: root for name, (_, root) in given["sources"].items()}
    check_place(given["out"], roots)
    if given.get("work") is not None:
        check_place(given["work"], roots, "--work")
    SEGMENTERS.get(given["segmenter"])
    PARSERS.get(given["parser"])
    if given["initial"] != "simulated":
        SEGMENTERS.get(given["initial"])
    rules = Rules(min_area=given["min_area"], gutter=given["gutter"], verify=given["verify"])
    same = ("out", "segmenter", "segmenter_weights", "parser", "parser_weights", "train", "device")
    o = Options(
        **{k: given[k] for k in same},
        roots=roots,
        formats={name: kind for name, (kind, _) in given["sources"].items()},
        workers=given["workers"] or os.cpu_count() or 1,
        rules=rules,
        review=given["review"],
        merge=Merge(given["rule"], tuple(given["seniors"]), given["least"]),
        decisions=tuple(given["decisions"]),
        sizes=SplitSizes(val=given["val_humans"], test=given["test_humans"], fold=given["fold"]),
        scenes=given["scenes"],
        places365=given["places365"] or None,
        close_holes=given.get("close_holes", True),
        quiet=given["quiet"],
    )
    alike = ("seed", "densities", "per_human", "flip", "initial", "initial_weights", "initial_iou", "occluder_sources")
    s = Synthesis(**{k: given[k] for k in alike}, mode=given["placement"], scale=given["scale"] or None)
    s.settings()  # refuses a range that is none
    check_occluders(o, s)
    check_files(o)
    check_networks(o, s, given["stop_after"])
    return o, s


def begin(o: Options, s: Synthesis) -> dict[str, Any]:
    """Write ``build.json`` where there is none: the folder is a build from here on. Returns what stood there.

    One that stands is of what stands, and stays until the harvest of the new options stands: they may be refused.
    """
    disk.forget_unfinished(o.out)
    said: Any = None
    with suppress(UserError):  # none, or damaged
        said = disk.read_json(o.out / "build.json")
    if isinstance(said, dict) and said:
        return said
    write_about(o, s)
    return {}


def write_about(o: Options, s: Synthesis) -> None:
    """``build.json``: what this build is, and where its photos are."""
    where = ("out", "roots", "formats", "workers", "quiet", "engine")
    said = {k: v for k, v in asdict(replace(o, engine=None)).items() if k not in where}
    resolved = {"densities": {n: s.density_of(n) for n in SPLITS}, "occluder_sources": flow_splits.sources_of(o, s)}
    files = {"decisions": [p.name for p in o.decisions], "scenes": o.scenes.name if o.scenes else None}
    files |= {"places365": [p.name for p in o.places365] if o.places365 else None}
    about = {
        "roots": o.names,
        "formats": {name: o.format_of(name) for name in o.names},
        "seed": s.seed,
        "options": said | asdict(s) | resolved | files,
        "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
    }
    disk.write_json(o.out / "build.json", about)


def build(o: Options, s: Synthesis, say: Say, stop_after: str | None = None) -> Path | None:
    """All stages in order, then the page; None when stopped before it."""
    before = {} if dry.running() else begin(o, s)
    r = flow.harvest(o)
    say(r, _harvest_words(r))
    if not dry.running():
        if before.get("roots") != o.names:  # the annotations are the same ones elsewhere: the photos may not be there
            o.mounted()()
        write_about(o, s)
    if stop_after == "harvest":
        return None
    return _from_people(o, s, say, stop_after)


def _from_people(o: Options, s: Synthesis, say: Say, stop_after: str | None) -> Path | None:
    """The stages after the harvest."""
    r = flow.segment(o)
    say(r, f"{r.counts['out'] + r.counts['dropped']} candidates -> {r.counts['out']} with a mask")
    if stop_after == "segment":
        return None
    r = flow.parse(o)
    say(r, f"{r.counts['out']} people")
    if stop_after == "parse":
        return None
    r, cut = flow.review(o)
    say(r, _review_words(r, o.review))
    if stop_after == "review":
        return None
    if not dry.running():
        training.check_initial(s.initial, s.initial_weights, cut)
    flow_splits.bank(o, cut, s)
    for name in SPLITS:
        before = flow_splits.standing(o.out / "splits" / name) if name != "train" else None  # train is never frozen
        r = split_of(o, s, name)
        bins = ", ".join(str(r.counts.get(f"bin{i}", 0)) for i in range(_bins(s, name)))
        say(r, f"{r.counts['in']} people -> {r.counts['out']} samples (by bin: {bins})")
        flow_splits.tell_replaced(before, r)
    if stop_after == "splits":
        return None
    return report(o.out, s.seed, anew=False, merge=o.merge, decisions=o.decisions)


def split_of(o: Options, s: Synthesis, name: str) -> Result:
    """One split; test holds real composites alone as soon as voters have passed some (spec §2)."""
    if name == "test" and (o.out / "compose").exists():
        from ahp_toolkit.decisions.votes import begun, passed
        from ahp_toolkit.stages.composites import write_test
        from ahp_toolkit.stages.synthesize import Initial

        if begun(o.out) and passed(o.out):
            initial = Initial(s.initial, s.initial_weights, s.initial_iou, o.device)
            return write_test(o.out, initial=initial, seed=s.seed)
    return flow_splits.split(o, s, name)


def _bins(s: Synthesis, name: str) -> int:
    from ahp_toolkit.occlusion.densities import parse

    return len(parse(s.density_of(name)).bins)


def _sum(counts: dict[str, int], start: str) -> int:
    return sum(n for k, n in counts.items() if k.startswith(start))


def _harvest_words(r: Result) -> str:
    c = r.counts
    read = f"{_sum(c, 'images/')} photos, {_sum(c, 'persons/')} persons read -> {c['out']} candidates; "
    read += f"{_sum(c, 'occluders_other/')} other instances and {_sum(c, 'occluders_person/')} persons can occlude"
    lost = _sum(c, "occluders_lost/")
    return f"{read}, {lost} are lost with photos that cannot be read" if lost else read


def _review_words(r: Result, mode: str) -> str:
    kept, refined = _sum(r.counts, "preserve/"), _sum(r.counts, "refine/")
    unseen = _sum(r.counts, "triage/")
    how = {"provisional": " (provisional: decided by rule, not by people)", "oracle": " (the sample world's truth)"}
    words = f"{kept} preserved, {refined} to refine{how.get(mode, '')}"
    return f"{words}, {unseen} discarded unseen by triage" if unseen else words


def roots_of(root: Path) -> dict[str, str]:
    """Data roots of a build, from its ``build.json``.

    Raises:
        UserError: when the folder is no build, or the file says no roots.
    """
    path = root / "build.json"
    if not path.exists():
        raise UserError(
            f"{root}: expected a build folder (build.json), found none; make one with ahp build --out {root}"
        )
    said = disk.read_json(path)
    roots = said.get("roots") if isinstance(said, dict) else None
    if not isinstance(roots, dict) or not all(isinstance(at, str) for at in roots.values()):
        raise UserError(f"{path}: expected a JSON object with the data roots of a build; run the ahp build of it again")
    return roots


def _roots_beside(root: Path, out: Path) -> dict[str, str]:
    """`roots_of` a build; refuses an ``out`` among the sources' files, as the build itself does."""
    roots = roots_of(root)
    check_place(out, {name: place(at) for name, at in roots.items()})
    return roots


def renderer_of(root: Path) -> Any:
    """A callable that regenerates the pixels of any sample of a build."""
    from ahp_toolkit.core.records import Sample
    from ahp_toolkit.occlusion.paste import Pasted
    from ahp_toolkit.occlusion.render import Renderer

    roots = roots_of(root)
    by_split = {name: Renderer(roots, root / "splits" / name) for name in SPLITS}

    def render(sample: Sample) -> Pasted:
        return by_split[sample.split](sample)

    return render


def merge_of(root: Path) -> Merge:
    """How a build merges its reviewers' words, from its ``build.json``."""
    said = disk.read_json(root / "build.json").get("options", {}).get("merge")
    return Merge(said["rule"], tuple(said["seniors"]), said["least"]) if said else Merge()


def tell_left_out(root: Path, decisions: Sequence[Path]) -> None:
    """Say which decision logs a build was given, by name, that are not among ``decisions``."""
    given = disk.read_json(root / "build.json").get("options", {}).get("decisions", [])
    left = sorted(set(given) - {p.name for p in decisions})
    if left:
        sys.stderr.write(f"{root}: made without the words of {', '.join(left)}; give the build's --decisions again\n")


def report(
    root: Path, seed: int = 0, anew: bool = True, merge: Merge | None = None, decisions: Sequence[Path] = ()
) -> Path:
    """The HTML page with its tables and pictures; unless ``anew``, left alone where nothing has changed.

    ``merge`` makes one decision of several words, as the build did where it is None; ``decisions`` are the logs that
    the build was given beside its own.

    Raises:
        UserError: when the folder is no build.
    """
    roots_of(root)
    merge = merge or merge_of(root)
    page, mark = root / "report" / "index.html", root / "report" / "made.json"
    key = {"seed": seed, **_shown(root, merge, decisions)}
    if not anew and page.exists() and disk.read_sealed(mark) == key | {"page": hashing.digest_file(page)}:
        return page
    dry.stop("report", root / "report")
    disk.forget_unfinished(root / "report", deep=True)
    from ahp_toolkit.decisions.status import status_html
    from ahp_toolkit.report.page import write_report

    said = status_html(root, merge, logs=decisions) if decisions or logs_of(root) else ""
    made = write_report(root, render=renderer_of(root), seed=seed, review=said)
    disk.write_bytes(mark, disk.sealed(key | {"page": hashing.digest_file(made)}))
    return made


def _shown(root: Path, merge: Merge, decisions: Sequence[Path]) -> dict[str, Any]:
    """All that the page is made of, as digests."""
    from ahp_toolkit.report import page

    stages = sorted(root.glob("*/stage.json")) + sorted(root.glob("splits/*/stage.json"))
    logs = dict.fromkeys(p.resolve() for p in (*decisions, *logs_of(root)))
    return {
        "stages": [[str(p.relative_to(root)), disk.read_json(p)["digest"]] for p in stages],
        "about": hashing.digest_file(root / "build.json"),
        "words": [[p.name, hashing.digest_file(p)] for p in logs],
        "merge": [merge.rule, list(merge.seniors), merge.least],
        "refine": hashing.digest_files(sorted((root / "refine").glob("part-*.parquet"))),
        "code": [
            code_digest("ahp_toolkit.report.page", "ahp_toolkit.decisions.status"),
            *(hashing.digest_file(Path(page.__file__).with_name(name)) for name in ("report.html", "report.js")),
        ],
    }


def materialize(root: Path, out: Path, splits: Sequence[str], what: str, engine: Engine) -> list[Result]:
    """The pixels of splits as files, never among those of the sources."""
    roots = _roots_beside(root, out)
    return flow_splits.materialize(root, roots, out, splits, what, engine)


def export(root: Path, out: Path, fmt: str, splits: Sequence[str], what: str, images: bool) -> list[Path]:
    """The samples or humans of splits in another format; see `export.export`."""
    from ahp_toolkit.export.export import Contents
    from ahp_toolkit.export.export import export as write

    _roots_beside(root, out)  # a folder that is no build is told from one that lacks a split
    return write(root, out, fmt, splits, Contents(what, images, renderer_of(root)))
