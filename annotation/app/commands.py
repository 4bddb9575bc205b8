"""``ahp bench open``: the predictions of several runs beside the truth, in the FiftyOne App."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from ahp_toolkit.runtime.options import Local
from annotation.app.options import Opening, opening_options

FOLDER = Local(exists=True, file_okay=False)


@click.command("open")
@click.option("--root", type=FOLDER, required=True, help="The build folder.")
@click.option(
    "--run", "runs", type=FOLDER, required=True, multiple=True, help="A run or a prediction folder. Repeatable."
)
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option(
    "--boards", type=FOLDER, multiple=True, help="Scored runs.  [default: boards, ROOT/boards, ROOT/paper/scores]"
)
@opening_options("Bring everything into the database and stop.")
def open_(root: Path, runs: tuple[Path, ...], split: str, boards: tuple[Path, ...], opening: Opening) -> None:
    """Show predictions beside the truth: masks, pictures, scores and disagreement, each sortable. Ctrl+C ends.

    Listens on the loopback alone. Scores are those that ahp bench score wrote; without them only masks are shown.
    """
    from annotation.app import bench_app

    folders = boards or (Path("boards"), root / "boards", root / "paper" / "scores")
    shown: list[bench_app.Shown] = []
    for run in runs:
        shown.append(bench_app.load(run, split, folders, [s.name for s in shown]))
        if not shown[-1].figures:
            click.echo(f"{run}: not scored, shown without figures (ahp bench score)", err=True)
    dataset = bench_app.build(root, shown, split, click.echo)
    click.echo(f"views: {', '.join(bench_app.views(dataset, shown)) or 'none'}")
    if opening.check:
        return
    session = bench_app.launch(root, dataset, opening.port)
    try:
        url = f"http://127.0.0.1:{session.server_port}/datasets/{dataset.name}"
        click.echo(f"{url} (Ctrl+C ends)")
        if opening.browser:
            webbrowser.open(url)
        session.wait(-1)
    finally:
        session.close()
