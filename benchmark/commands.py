"""``ahp bench``: score, validate, report."""

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
@click.option("--device", default="cpu", show_default=True, help="Where features are computed: cpu, cuda, cuda:1.")
@engine_options
def score(
    predictions: tuple[Path, ...],
    split: Path,
    out: Path,
    **options: Any,
) -> None:
    """Score submissions (folders or files) against a split.

    A submission that cannot be scored is named; the others are scored all the same, and the exit status is 2.
    """
    from ahp_toolkit.runtime import signals
    from ahp_toolkit.storage.sync import naming, reading, shown, working
    from benchmark.features.context import Context
    from benchmark.grading.score import score as run

    inception, lpips, device = (options.pop(k) for k in ("inception", "lpips", "device"))
    failed = list[UserError]()
    found, truth = [reading(p) for p in predictions], reading(split)  # before anything is written at ``out``
    with naming(split, *predictions), working(out) as boards, engine_of(options, workers=1) as engine:
        for path in found:
            try:
                context = Context(inception, lpips, boards / "cache", device)
                scored = run(path, truth, boards, context, engine=engine)
            except UserError as e:
                if len(found) == 1:
                    raise
                signals.user(str(e))
                failed.append(e)
                continue
            click.echo(_scored(scored, shown(out, boards, scored.folder)))
    if failed:
        raise UserError(f"{len(failed)} of {len(found)} submissions could not be scored: see above")


def _scored(scored: Any, folder: object) -> str:
    """A scored submission for the terminal: every figure, or why there is none."""
    from ahp_toolkit.report.tables import Column, Table
    from benchmark.boards.tables import column, n_of
    from benchmark.grading.score import figures
    from benchmark.metric import METRICS

    rows: list[list[Any]] = []
    for name, s in figures(scored.scores):
        c = column(METRICS.get(name))
        rows.append([name, c.show(s.value), c.unit, c.show(s.low), c.show(s.high), n_of(s)])
    heads = ("metric", "value", "unit", "low", "high", "n of N")
    columns = [Column(h, number=h in ("value", "low", "high")) for h in heads]
    lines = [f"{scored.model}  ->  {folder}", Table(columns, rows).text()]
    lines += [f"  {name}: absent: {reason}" for name, reason in scored.absent.items()]
    if scored.problems:
        lines.append(f"  {len(scored.problems)} problems: {_kinds(scored.problems)}; see ahp bench validate")
    return "\n".join(lines)


def _kinds(problems: Any) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in problems.counts.items())


@click.command()
@click.argument("predictions", type=_ANY)
@_SPLIT
def validate(predictions: Path, split: Path) -> None:
    """Print what is wrong with a submission, line by line; exit status 1 when anything is."""
    from benchmark.grading.submission import Submission, check_apart
    from benchmark.grading.submission import validate as run
    from benchmark.grading.truth import sample_pairs, split_digest

    pairs = sample_pairs(split)
    submission = Submission(predictions)
    check_apart(submission, split)
    problems = run(submission, [i for i, _ in pairs], split_digest(pairs))
    shown = list(problems)
    for problem in shown:
        click.echo(str(problem))
    if len(problems) > len(shown):
        click.echo(f"… and {len(problems) - len(shown)} more")
    click.echo(_kinds(problems) if shown else f"{predictions}: nothing wrong, {len(pairs)} of {len(pairs)} samples")
    if shown:
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
    from benchmark.boards.ranking import load_runs
    from benchmark.boards.report import write_report

    if out is None and isinstance(boards, Remote):
        raise UserError(f"--boards {boards}: is in an object store: expected --out with a local folder for the report")
    for path in write_report(boards, out or boards / "report", seed):
        click.echo(path)
    for name, reason in load_runs(boards)[1].items():
        click.echo(f"left out: {name}: {reason}", err=True)
