"""``ahp bench``: score, validate, report. The only file that knows two steps of the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.engine_options import engine_of, engine_options
from ahp_toolkit.runtime.options import Folder, Local

_FOLDER = Folder(exists=True)
_ANY = Folder(exists=True, file_okay=True)
_SPLIT = click.option("--split", required=True, type=_FOLDER, help="Folder of the split (part-*.parquet of samples).")


@click.command()
@click.argument("predictions", nargs=-1, required=True, type=_ANY)
@_SPLIT
@click.option("--out", default=Path("boards"), show_default=True, type=Folder(), help="Boards folder.")
@click.option("--inception", type=_ANY, help="pytorch-fid's weights (else AHP_INCEPTION_WEIGHTS, torch's hub cache).")
@click.option("--lpips", type=_ANY, help="torchvision's AlexNet weights (else AHP_LPIPS_WEIGHTS, torch's hub cache).")
@click.option("--device", default="cpu", show_default=True, help="Where features are extracted: cpu, cuda, cuda:1.")
@engine_options
def score(
    predictions: tuple[Path, ...],
    split: Path,
    out: Path,
    inception: Path | None,
    lpips: Path | None,
    device: str,
    **options: Any,
) -> None:
    """Score submissions (folders or JSON files) against a split."""
    from ahp_toolkit.runtime.publish import naming, reading, shown, working
    from benchmark.features.context import Context
    from benchmark.grading.score import figures
    from benchmark.grading.score import score as run

    found, truth = [reading(p) for p in predictions], reading(split)  # before anything is written at ``out``
    with naming(split, *predictions), working(out) as boards, engine_of(options, workers=1) as engine:
        context = Context(inception, lpips, boards / "cache", device)
        for path in found:
            scored = run(path, truth, boards, context, engine=engine)
            click.echo(f"{scored.model}  ->  {shown(out, boards, scored.folder)}")
            click.echo(_figures(list(figures(scored.scores))))
            for name, reason in scored.absent.items():
                click.echo(f"  {name:<22} absent: {reason}")
            if scored.problems:
                kinds = _kinds(scored.problems)
                click.echo(f"  {len(scored.problems)} problems: {kinds}; see score.json or ahp bench validate")


def _figures(rows: list) -> str:  # type: ignore[type-arg]
    from benchmark.metric import METRICS

    lines = []
    for name, s in rows:
        metric = METRICS.get(name).METRIC
        shown, unit = metric.shown, "" if metric.unit == "ratio" else f" {metric.unit}"
        spread = "" if s.low != s.low else f"[{shown(s.low)}, {shown(s.high)}]"  # NaN: no interval
        lines.append(f"  {name:<22} {shown(s.value):>9}{unit:<3} {spread:<20} {s.n} of {s.n + s.n_missing}")
    return "\n".join(lines)


def _kinds(problems: list) -> str:  # type: ignore[type-arg]
    from benchmark.grading.submission import counted

    return ", ".join(f"{n} {kind}" for kind, n in counted(problems).items())


@click.command()
@click.argument("predictions", type=_ANY)
@_SPLIT
def validate(predictions: Path, split: Path) -> None:
    """Say what is wrong with a submission, line by line; exit status 1 when anything is."""
    from benchmark.grading.submission import Submission
    from benchmark.grading.submission import validate as run
    from benchmark.grading.truth import sample_pairs, split_digest

    pairs = sample_pairs(split)
    submission = Submission(predictions)
    problems = run(submission, [i for i, _ in pairs], split_digest(pairs))
    for problem in problems:
        click.echo(str(problem))
    click.echo(_kinds(problems) if problems else f"{predictions}: nothing wrong, {len(pairs)} of {len(pairs)} samples")
    if problems:
        raise SystemExit(1)


@click.command()
@click.option("--boards", required=True, type=_FOLDER, help="The folder that ahp bench score wrote.")
@click.option("--out", type=Local(), help="Where the report goes.  [default: BOARDS/report]")
@click.option("--seed", default=0, show_default=True, help="Chooses the samples of the first grid.")
def report(boards: Path, out: Path | None, seed: int) -> None:
    """Write leaderboards: Markdown, CSV, LaTeX, JSON and one HTML page.

    CSV and JSON hold fractions (unit ratio) where the others print per cent.
    """
    from ahp_toolkit.storage.locations import Remote
    from benchmark.boards.report import write_report

    if out is None and isinstance(boards, Remote):
        raise UserError(f"--boards {boards}: is in an object store: expected --out with a local folder for the report")
    for path in write_report(boards, out or boards / "report", seed):
        click.echo(path)
