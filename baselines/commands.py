"""``ahp bench train``, ``ahp bench predict``, ``ahp predict``: options and messages; torch is imported on use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry, completes
from ahp_toolkit.runtime.engine_options import engine_of, engine_options
from ahp_toolkit.runtime.options import Folder, Local, Named
from ahp_toolkit.segmenters import SEGMENTERS

if TYPE_CHECKING:
    from baselines.inference.complete import Completer

FOLDER = Folder()
EXISTING = Local(exists=True)
RUN = Folder(exists=True, file_okay=True)
TRAINING = ("steps", "batch", "precision", "iou", "ema", "accumulate", "compile", "save_every")
RECIPE_NAMES = ("paper", "small", "debug")  # of recipes.py, which imports torch
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")


def _value(text: str) -> Any:
    """JSON, a fraction such as 1/3, or else the text itself."""
    above, slash, below = text.partition("/")
    if slash and above.isdecimal() and below.isdecimal() and int(below):
        return int(above) / int(below)
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings_of(pairs: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``key=value`` pairs to (settings of the model, of the training: those named ``train.key``).

    Raises:
        UserError: for something that is no pair, or an unknown training setting.
    """
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set {pair}: expected KEY=VALUE, such as width=32 or train.steps=1000")
        if not key.startswith("train."):
            model[key] = _value(value)
        elif key[6:] in TRAINING:
            training[key[6:]] = _value(value)
        else:
            raise UserError(
                f"--set {key}: no such training setting; known: {', '.join('train.' + t for t in TRAINING)}"
            )
    return model, training


@click.command()
@click.argument(
    "model", shell_complete=completes(Registry("model", "baselines.models", group="ahp_toolkit.models").names)
)
@click.option("--task", type=click.Choice(["mask", "content"]), required=True)
@click.option("--root", type=FOLDER, required=True, help="The build folder whose train split is used.")
@click.option("--out", type=FOLDER, help="Where runs/ is; default ROOT.")
@click.option(
    "--recipe",
    default="debug",
    show_default=True,
    shell_complete=completes(lambda: RECIPE_NAMES),
    help="paper, small or debug.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the model, or train.KEY.")
@DEVICE
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="Processes, one a device.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Loader processes a device.")
@click.option("--init", type=EXISTING, help="A run folder or model file to start from (fine-tuning).")
@click.option("--name", default="", help="Name of the run folder; default: made from what the run is.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def train(model: str, pairs: tuple[str, ...], **options: Any) -> None:
    """Train MODEL for a task; the same command goes on where it was stopped.

    \b
    ahp bench train human_deocclusion --task mask --root out/ahp --recipe small
    torchrun --nproc-per-node 8 -m ahp_toolkit.cli.main bench train pcnets --task content --root out/ahp --recipe paper
    """
    from ahp_toolkit.storage.sync import reading_and_working, shown
    from baselines.training.job import Training
    from baselines.training.train import train as run

    settings, training = settings_of(pairs)
    root, out = options.pop("root"), options.pop("out")
    with reading_and_working(root, out) as (read, to):
        where = to if out else None
        folder = run(Training(root=read, out=where, model=model, settings=settings, **options, **training))
        record = json.loads((folder / "run.json").read_bytes())
        folder = shown(out or root, to, folder)
    note = _parsing_note(record)
    if note:
        click.echo(note, err=True)
    iou, source = record["training"]["iou"], record.get("iou_from", "build")
    click.echo(f"initial masks simulated at a mean IoU of {iou:g} ({source})", err=True)
    best = record.get("best")
    if best:
        click.echo(f"best {best['by']} {best[best['by']]:.4f} at step {best['step']}", err=True)
    click.echo(folder)


def _parsing_note(record: dict[str, Any]) -> str:
    """What a run lacked where it uses parsings: its losses in the mask task, its attention's guide in the other."""
    parsed, people, settings = record["people_with_parsing"], record["people"], record["settings"]
    if parsed == people:
        return ""
    missing = f"{people - parsed} of {people} people have no parsing: "
    if record["task"] == "mask" and settings.get("parsing"):
        return missing + "they trained the mask terms only"
    if record["task"] == "content" and (settings.get("attention_b") or settings.get("attention_t")):
        return missing + "no body parts guided the attention on them"
    return ""


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--split", type=Named(), required=True, help="val, test or train of the run's build; or a split's folder."
)
@click.option("--root", type=FOLDER, help="The build folder; default: the one that holds the run.")
@click.option("--out", type=FOLDER, help="Default: RUN/predictions/SPLIT (with -cascade where a mask run feeds it).")
@click.option("--mask-run", type=RUN, help="Feed a content run this mask run's own outputs instead of the truth.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "auto"]), default="fp32", show_default=True)
@click.option("--which", type=click.Choice(["best", "last"]), default="best", show_default=True)
@DEVICE
@engine_options
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def predict(run: Path, split: str, root: Path | None, out: Path | None, mask_run: Path | None, **options: Any) -> None:
    """Write RUN's answers to a split's samples as a folder for ``ahp bench score``."""
    from ahp_toolkit.nets.devices import pick_device
    from ahp_toolkit.storage.sync import check_there, local_to, naming, shown, working
    from baselines.inference.predict import Options, predict_run

    check_there(run, root, mask_run)
    home = _whole(run).parent.parent
    where = out or home  # what is written lies there
    with naming(run, root or home, mask_run), working(where) as local:
        here = local_to(where, local)
        run, build, masks = here(_whole(run)), here(root or home), here(mask_run) if mask_run else None
        folder = Path(split) if Path(split).is_dir() else build / "splits" / split
        if not folder.is_dir():
            raise UserError(f"--split {split}: {folder} is no folder; give --root, or the split's own folder")
        base = run if run.is_dir() else run.parent
        if out is None and _of_another_build(base.parent.parent, folder):
            raise UserError(f"{folder} is of another build than {base.name}; say with --out where its predictions go")
        to = local if out else base / "predictions" / (folder.name + ("-cascade" if masks else ""))
        alone = options["engine"] == "local" and pick_device(options["device"]).type != "cpu"
        with engine_of(options, workers=1 if alone else None) as engine:
            predict_run(run, folder, to, masks, Options(**options), engine)
        record = json.loads((to / "run.json").read_bytes())
    for note in record["training_people"]:
        click.echo(note, err=True)
    click.echo(f"{record['predictions']} predictions, {record['missed']} missed, fed by {record['fed_by']}", err=True)
    click.echo(shown(where, local, to))


def _whole(run: Path) -> Path:
    """A run's path from the root on: ``.`` and a lone name have parents too."""
    from ahp_toolkit.storage.locations import Remote

    return run if isinstance(run, Remote) else Path(os.path.abspath(run))  # noqa: PTH100  a link keeps its own parents


def _of_another_build(own: Path, split: Path) -> bool:
    """Whether a split lies outside of the build that a run lies in; a run may lie in none, and a split be a link."""
    homes = (split.resolve().parent.parent, split.absolute().parent.parent.resolve())
    return (own / "build.json").exists() and own.resolve() not in homes


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photo", type=EXISTING)
@click.option("--box", "boxes", multiple=True, metavar="X0,Y0,X1,Y1", help="Around a person, px. Repeatable.")
@click.option(
    "--mask",
    type=EXISTING,
    help="Label picture: 0 background, each other value a person; a soft-edged one, 0 to 255, is one person from 128 "
    "on. A folder: by name, a.png or a.jpg.png for a.jpg.",
)
@click.option(
    "--boxes-file", type=EXISTING, help='JSON: {"photo.jpg": [[x0, y0, x1, y1], ...]}; for a folder of photos.'
)
@click.option("--mask-run", type=EXISTING, required=True, help="A run for masks (stage 1).")
@click.option("--content-run", type=EXISTING, required=True, help="A run for content (stage 2).")
@click.option("--out", type=Local(file_okay=False), required=True)
@click.option(
    "--segmenter",
    default="mask_rcnn",
    show_default=True,
    shell_complete=completes(SEGMENTERS.names),
    help="Who makes the mask of a box.",
)
@click.option("--segmenter-weights", type=Named(), help="Its checkpoint; default: the published one.")
@DEVICE
def predict_photo(
    photo: Path, boxes: tuple[str, ...], mask: Path | None, boxes_file: Path | None, out: Path, **options: Any
) -> None:
    """Complete people in anybody's photograph (or in a folder of them): masks, recovered photo, cutout.

    The photo is taken as every viewer shows it (EXIF applied); boxes and masks are in that frame.

    \b
    OUT/a          the one person of a.jpg (OUT/a.jpg where there is an a.png too)
    OUT/a/0, /1    several people: first the boxes, then the mask's values
    OUT/left_out.json   who was not completed, and why; status 2 only when nobody was
    """
    from ahp_toolkit.storage.files import forget_dead, write_json
    from baselines.data.people import box_of, names_of
    from baselines.data.people import boxes_file as read_boxes
    from baselines.inference.complete import Completer

    for text in boxes:
        box_of(text)  # what is wrong on the command line is record before anything is loaded
    named = read_boxes(boxes_file)
    completer = Completer(**options)
    if boxes or named:
        completer.load_segmenter()
    photos = sorted(p for p in photo.iterdir() if p.suffix.lower() in PICTURES) if photo.is_dir() else [photo]
    if not photos:
        raise UserError(f"{photo}: expected photos in it ({', '.join(PICTURES)}), found none")
    done = 0
    left: list[dict[str, Any]] = []

    def leave(photo: str, person: Path, reason: object) -> None:
        left.append({"photo": photo, "person": str(person), "reason": str(reason)})

    for path, name in zip(photos, names_of(photos), strict=True):
        for folder, error in _completed(completer, path, out / name, [*boxes, *named.get(path.name, [])], mask):
            if error is None:
                done += 1
                click.echo(folder)
                continue
            leave(path.name, folder.relative_to(out), error)
            click.echo(f"{path}: left out: {error}", err=True)
    for name in sorted(named.keys() - {path.name for path in photos}) if photo.is_dir() else ():
        leave(name, Path(name), "no photo of this name")
        click.echo(f"{boxes_file}: {name}: left out: no photo of this name", err=True)
    listing = out / "left_out.json"
    forget_dead(listing)
    write_json(listing, left)
    if not done:
        raise UserError(
            f"nobody was completed, {len(left)} left out; the first: {left[0]['photo']}: {left[0]['reason']}"
        )
    click.echo(f"{done} completed, {len(left)} left out (see {listing})", err=True)


def _completed(
    completer: Completer, path: Path, folder: Path, boxes: list[str], mask: Path | None
) -> Iterator[tuple[Path, Exception | None]]:
    """Complete the people of one photo, several in folders by number; what is wrong with one stops no other."""
    from ahp_toolkit.storage import images
    from baselines.data.people import box_of, mask_file, masks_in

    try:
        pixels = images.read(path, shown=True)
        file = mask_file(mask, path)
        masks = list(masks_in(file)) if file is not None else []
    except (images.ImageError, UserError) as e:
        yield folder, e
        return
    people: list[Any] = [*boxes, *masks]
    if not people:
        yield folder, UserError("no box and no mask for it")
    for k, person in enumerate(people):
        to = folder if len(people) == 1 else folder / str(k)
        try:
            given = {"box": box_of(person)} if isinstance(person, str) else {"mask": person}
            completer(pixels, **given).write(to)
        except UserError as e:
            yield to, e
        else:
            yield to, None
