"""``ahp``: a lazy click group that knows its commands by "module:name" only, so that ``ahp --help`` answers at once."""

from __future__ import annotations

import importlib
import sys

import click

from . import __version__
from .core.errors import UserError

Table = dict[str, tuple[str, str]]

#: name -> (module:attribute, one line of help); nothing is imported until a command runs
BENCH: Table = {
    "train": ("baselines.commands:train", "Train one of the paper's models or baselines."),
    "predict": ("baselines.commands:predict", "Write a run's predictions of a split."),
    "score": ("benchmark.commands:score", "Score anybody's predictions by the protocol's definitions."),
    "validate": ("benchmark.commands:validate", "Say what is wrong with a submission, line by line."),
    "report": ("benchmark.commands:report", "Leaderboards as HTML, Markdown, CSV, LaTeX and JSON."),
    "paper": ("ahp_toolkit.paper_commands:paper", "Fill the paper's Tables 1 to 6: plan, train, predict, score."),
    "open": ("annotation.bench_commands:open_", "Several runs' predictions beside the truth, in the FiftyOne App."),
}
COMMANDS: Table = {
    "demo": ("ahp_toolkit.commands:demo", "See the whole pipeline work on an embedded, procedural world."),
    "build": ("ahp_toolkit.commands:build", "Build the dataset: harvest, segment, parse, review, splits, report."),
    "review": ("annotation.commands:review", "Discard, preserve or refine in the FiftyOne App, by keyboard."),
    "bench": ("ahp_toolkit.cli:bench", "Train, predict and score: the de-occlusion benchmark."),
    "predict": ("baselines.commands:predict_photo", "Complete the occluded people of a photo."),
    "doctor": ("ahp_toolkit.commands:doctor", "Say what is installed, what is missing, and how to get the rest."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, *args: object, table: Table, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command ``name``."""
        if name not in self.table:
            return super().get_command(ctx, name)
        module, attribute = self.table[name][0].split(":")
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names and help lines without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


@click.group(cls=Lazy, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ahp")
def ahp() -> None:
    """Amodal Human Perception: build, review and benchmark occluded people with exact ground truth."""


@click.group(cls=Lazy, table=BENCH, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """The de-occlusion benchmark: train and predict with the models, score and rank anybody's predictions."""


def main() -> None:
    """The console script: a user's error is one line on stderr and exit status 2, without a traceback."""
    try:
        ahp(standalone_mode=False)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except click.exceptions.Abort:
        sys.stderr.write("stopped; the same command goes on from here\n")
        sys.exit(130)
    except UserError as e:
        sys.stderr.write(f"ahp: {e}\n")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
