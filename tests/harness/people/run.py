"""``make people``: the build and the boards on real people, from the folder of small public sets; resumable.

``python -m tests.harness.people.run --people DIR --out DIR [--recipe NAME] [--steps N] [--seeds N] [--only TEXT]``. DIR
holds ``ccp``, ``coco288``, ``pennfudan``, ``pelota``, ``street_boxes`` and ``verdicts.csv``; a set that is not there is
left out. Each step is a command of ``ahp`` that continues where it was stopped: build up to the parsings, import the
verdicts as a reviewer called ``eye``, finish the build, train each model, predict val, score, report. Where nobody has
looked the provisional rule decides, and the page says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ahp_toolkit.core.records import Segmented
from ahp_toolkit.storage import parquet

SETS = {
    "ccp": "lip", "coco288": "coco", "pennfudan": "coco", "pelota": "coco", "street_boxes": "objects365",
}  # fmt: skip
REVIEWER = "eye"
#: Reasons in the verdicts -> the reasons of the review.
REASON = {
    "hidden": "occluded", "cut_off": "truncated", "group": "group", "no_person": "not_a_person", "held_thing": "other",
    "unclear": "other",
}  # fmt: skip
AIDS = ("carried=true", "hidden=0.3333")


@dataclass(frozen=True)
class Row:
    """One row of a board: a model, its task, and the settings that differ from its paper's."""

    model: str
    task: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its runs, without the seed."""
        return "-".join((self.model, self.task, *(s.replace("=", "") for s in self.settings))).replace(".", "")


MASKS = ("human_deocclusion", "pcnets", "ovsr", "segan", "pix2pix", "deeplab", "mask_rcnn", "unet")
CONTENT = ("human_deocclusion", "pcnets", "ovsr", "segan", "pix2pix", "deepfillv2", "unet")
ROWS = (
    *(Row(m, "mask") for m in MASKS),
    *(Row(m, "mask", AIDS) for m in MASKS),
    *(Row(m, "content") for m in CONTENT),
)
UNTRAINED = (("initial", "mask"), ("mean_template", "mask"), ("nothing", "content"))


def ahp(*words: object) -> None:
    """Run a command of the toolkit; its failure ends this one."""
    command = [sys.executable, "-m", "ahp_toolkit.cli.main", *map(str, words)]
    print("$ ahp", *words, flush=True)
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def decisions(build: Path, verdicts: Path, to: Path) -> int:
    """Write the verdicts as decisions on the masks of the build; returns how many have a candidate there.

    A verdict names its set, its file and, after ``#``, its annotation; ids of a build also hold the path of the photo.
    """
    known = {}
    for s in parquet.read_records(build / "parse", Segmented):
        image = s.candidate.image
        mark = s.candidate.candidate_id.rpartition("#")[2]
        known[image.source, Path(image.path).name, mark] = (s.candidate.candidate_id, s.mask.digest)
    rows = []
    for row in csv.DictReader(verdicts.open(encoding="utf-8")):
        found = known.get((row["set"], row["file"], row["candidate_id"].rpartition("#")[2]))
        if found:
            rows.append((*found, row["verdict"], REASON.get(row["reason"], ""), row["reason"]))
    with to.open("w", encoding="utf-8", newline="") as f:
        out = csv.writer(f)
        out.writerow(("candidate_id", "mask_digest", "verdict", "reason", "note"))
        out.writerows(sorted(rows))
    return len(rows)


def build(people: Path, out: Path, recipe: str) -> None:
    """The build: harvest, networks trained on the people that have masks and parsings, verdicts, splits."""
    sources = [w for n, f in SETS.items() if (people / n).exists() for w in ("--source", f"{n}:{f}={people / n}")]
    options = (*sources, "--out", out, "--segmenter", "deeplab", "--parser", "hrnet", "--review", "provisional")
    if not list((out / "decisions").glob(f"{REVIEWER}.jsonl")):
        ahp("build", *options, "--train", recipe, "--stop-after", "parse")
        table = out / "eye.csv"
        print(f"{decisions(out, people / 'verdicts.csv', table)} verdicts on candidates of this build", flush=True)
        ahp("review", "import", "--root", out, table, "--reviewer", REVIEWER)
    ahp("build", *options, "--train", recipe)
    ahp("build", "materialize", "--root", out, "--split", "val", "--what", "crops")


def runs(args: argparse.Namespace) -> Iterator[Path]:
    """Train and predict every row with every seed; yields the folders of predictions."""
    for model, task in UNTRAINED:
        yield one(args, Row(model, task), 0)
    for seed in range(args.seeds):
        for row in ROWS:
            if args.only in row.name:
                yield one(args, row, seed)


def one(args: argparse.Namespace, row: Row, seed: int) -> Path:
    """The predictions of one run, made unless they are there."""
    name = f"{row.name}-{seed}"
    run = args.out / "runs" / name
    made = run / "predictions" / "val"
    if not (made / "run.json").exists():
        sets = [w for s in row.settings for w in ("--set", s)]
        steps = ("--set", f"train.steps={args.steps}") if args.steps and row.model not in dict(UNTRAINED) else ()
        start = time.monotonic()
        where = ("--task", row.task, "--root", args.out, "--recipe", args.recipe, "--seed", seed, "--name", name)
        ahp("bench", "train", row.model, *where, *sets, *steps, "-q")
        ahp("bench", "predict", run, "--split", "val", "-q")
        with (args.out / "hours.jsonl").open("a") as f:
            f.write(json.dumps({"run": name, "seconds": round(time.monotonic() - start)}) + "\n")
    return made


def main() -> None:
    """Build, train, score, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/people"))
    parser.add_argument("--recipe", default="debug")
    parser.add_argument("--steps", type=int, default=1800, help="of each run; 0: the recipe's own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="runs whose names hold this text")
    args = parser.parse_args()
    build(args.people, args.out, args.recipe)
    for predictions in runs(args):
        ahp("bench", "score", predictions, "--split", args.out / "splits" / "val", "--out", args.out / "boards")
        ahp("bench", "report", "--boards", args.out / "boards")


if __name__ == "__main__":
    main()
