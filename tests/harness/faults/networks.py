"""The cells that run networks: the trainers of a harvest, another segmenter for refining, anybody's photos, the paper.

The networks are the product's own with fewer channels, trained for a few steps: what is written, when, and how it is
gone on with does not depend on their size, and a small disk holds them.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.harness.faults import child
from tests.harness.faults.cells import SMALL, TRAIN, Cell, Digest, bench_base, build_args, fingerprint
from tests.harness.faults.reviewed import proposed, spoken

MODULES = (
    "ahp_toolkit.cli.training", "ahp_toolkit.stages.train_networks", "torchvision.models.detection",
    "segmentation_models_pytorch", "timm", "annotation.exchange.commands", "annotation.exchange.resegment",
)  # fmt: skip
TRAINERS = {
    "train deeplab": ("segmenter", "--name", "deeplab"),
    "train centermask": ("segmenter", "--name", "centermask"),
    "train hrnet": ("parser",),
}


def shrink() -> None:
    """Make the debug presets of this process, and of those it forks, a matter of half a second."""
    from segmentation_models_pytorch.encoders import encoders
    from timm.models import hrnet, vovnet

    from ahp_toolkit import parsers
    from ahp_toolkit.nets.fit import Settings
    from ahp_toolkit.segmenters import centermask, deeplab

    few: dict[str, Any] = {"lr": 1e-3, "pretrained": "no", "save_every": 2, "judge": 2}
    encoders.setdefault("tu-test_efficientnet", {"pretrained_settings": {}})
    deeplab.PRESETS["debug"] = Settings("tu-test_efficientnet", 32, 4, 2, **few)
    slim = {"stem_chs": [8, 8, 8], "stage_conv_chs": [8] * 4, "stage_out_chs": [16, 16, 16, 16]}
    vovnet.model_cfgs["ese_vovnet19b_slim_dw"].update(slim)
    centermask.PRESETS["debug"] = Settings("ese_vovnet19b_slim_dw", 64, 4, 2, width=64, **few)
    small = hrnet.cfg_cls["hrnet_w18_small"]
    small["stem_width"] = 8
    for stage, channels in (("stage1", (8,)), ("stage2", (4, 8)), ("stage3", (4, 8, 8)), ("stage4", (4, 8, 8, 8))):
        small[stage]["num_channels"] = channels
    parsers.PARSERS.get("hrnet").PRESETS["debug"] = Settings("hrnet_w18_small", 64, 4, 2, **few)
    real = deeplab.build

    def finds(*args: Any, **more: Any) -> Any:
        """An untrained network that sees a person everywhere: what is proposed is the box."""
        made = real(*args, **more, encoder="tu-test_efficientnet")
        made.net.segmentation_head[0].bias.data += 9
        return made

    deeplab.build = finds


def shrink_paper() -> None:
    """Table 2 with one method, trained for two steps: every row is made alike."""
    from ahp_toolkit.cli.bench import paper_tables

    paper_tables.TABLE2 = {"Pix2Pix": "pix2pix"}
    paper_tables.Setup = functools.partial(paper_tables.Setup, settings={"width": 4, "critic_width": 4})  # type: ignore[assignment, misc]


def trainer_cells(sources: Path) -> list[Cell]:
    """The networks that a harvest trains; of a fold, so that the few people with parsings may be trained on."""
    preset = ("--root", "out", "--preset", "debug", "--device", "cpu")

    def harvest(work: Path) -> None:
        done(work, *build_args(sources), "--fold", "4/5", "--stop-after", "harvest")

    return [
        Cell(
            name, child.command("build", *command, *preset), ("out/weights/**/*",), (), _weights, group="networks",
            prepare=harvest, reads=True,
        )
        for name, command in TRAINERS.items()
    ]  # fmt: skip


def resegment_cell() -> Cell:
    """Another segmenter looks at those whom people want refined."""
    tool = ("--segmenter", "deeplab", "--weights", "random", "--device", "cpu")
    return Cell(
        "resegment", child.command("review", "resegment", "--root", "root", *tool), ("root/refine/*",),
        (), proposed, group="networks", prepare=spoken, reads=True, photos="root/data",
    )  # fmt: skip


def bench_more_cells() -> list[Cell]:
    """The leaderboards' pages, a table of the paper from its runs to its page, and anybody's photos."""
    on: dict[str, Any] = {"group": "bench", "photos": "b"}
    report = child.command("bench", "report", "--boards", "b/boards")
    paper_tables = child.command("bench", "paper", "--root", "b", "--tables", "2", "--steps", "2", "--device", "cpu")
    photos = child.command(
        "predict", "photos", "--mask", "masks", "--mask-run", "b/runs/r", "--content-run", "b/runs/c", "--out", "p",
        "--device", "cpu",
    )  # fmt: skip
    return [
        Cell("leaderboards", report, ("b/boards/report/*",), before="score", **on),
        Cell("paper", paper_tables, ("b/paper/*", "b/paper/scores/**/*"), (), _paper, prepare=_finished, reads=True,
             **on),
        Cell("photos", photos, ("p/**/*",), before="train", prepare=_photos, group="bench", reads=True,
             photos="photos"),
    ]  # fmt: skip


def done(work: Path, *argv: str) -> None:
    """Run a command to its end in ``work``."""
    with tempfile.TemporaryDirectory() as aside:
        ended = child.run(child.command(*argv), work, Path(aside))
    if ended.code:
        raise RuntimeError(f"ahp {' '.join(argv)}: {ended.code} {ended.said[-2000:]}")


def _finished(work: Path) -> None:
    """The drawn build, its val marked as what a build has ended."""
    from ahp_toolkit.storage import files

    bench_base(work)
    mark = {"name": "val", "counts": {}, "dropped": {}, "digest": "made by hand", "key_digest": ""}
    files.write_json(work / "b" / "splits" / "val" / "stage.json", mark)


def _photos(work: Path) -> None:
    """Two photos with a person each, and a run for content beside that for masks."""
    from ahp_toolkit.storage import images
    from tests.baselines.training.world import drawn

    sets = [x for s in SMALL for x in ("--set", s)]
    done(work, *(("content" if a == "mask" else "c" if a == "r" else a) for a in TRAIN), *sets)
    for seed in (70, 71):
        photo, labels = drawn(seed)
        labels[60:] = 0  # what hides the legs
        images.write_png(work / "photos" / f"{seed}.png", photo)
        images.write_png(work / "masks" / f"{seed}.png", (labels > 0).astype("uint8"))


def _weights(folder: Path) -> Digest:
    """Every file but how long it took."""
    found = fingerprint(folder / "out" / "weights")
    return {name: digest for name, digest in found.items() if not name.endswith(".timing.json")}


def _paper(folder: Path) -> Digest:
    """The pages and figures, without the names of scored runs, which hold how long predictions took; how runs ended."""
    root = folder / "b"
    pages = {p.name: p.read_text() for p in (root / "paper").glob("*.*") if p.suffix in (".md", ".html", ".csv")}
    rows = [row.rpartition(",")[0] for row in pages.pop("table_2.csv").splitlines()]
    said = [json.loads(p.read_text()) for p in sorted(root.glob("runs/*/run.json"))]
    ended = [{k: r.get(k) for k in ("status", "step", "best", "val", "key")} for r in said]
    about = {"rows": json.dumps(rows), "runs": json.dumps(ended, sort_keys=True)}
    return pages | about | {str(p.relative_to(folder)): "left over" for p in root.rglob("*.tmp")}
