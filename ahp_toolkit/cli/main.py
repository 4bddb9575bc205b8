"""``ahp``: a lazy click group that knows its commands by "module:name" only, so that ``ahp --help`` answers at once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.runtime import logging, signals
from ahp_toolkit.runtime.options import Local, legible

Table = dict[str, tuple[str, str]]
WORDS = "ahp.words"

#: name -> (module:attribute, one line of help); nothing is imported until a command runs
BENCH: Table = {
    "train": ("baselines.commands:train", "Train one of the paper's models or baselines."),
    "predict": ("baselines.commands:predict", "Write a run's predictions of a split."),
    "score": ("benchmark.commands:score", "Score anybody's predictions by the protocol's definitions."),
    "validate": ("benchmark.commands:validate", "Say what is wrong with a submission, line by line."),
    "report": ("benchmark.commands:report", "Leaderboards as HTML, Markdown, CSV, LaTeX and JSON."),
    "paper": (
        "ahp_toolkit.cli.bench.paper_commands:paper",
        "Fill the paper's Tables 1 to 6: plan, train, predict, score.",
    ),
    "open": ("annotation.bench_commands:open_", "Several runs' predictions beside the truth, in the FiftyOne App."),
}
COMMANDS: Table = {
    "demo": ("ahp_toolkit.cli.build:demo", "See the whole pipeline work on an embedded, procedural world."),
    "build": ("ahp_toolkit.cli.build:build", "Build the dataset: harvest, segment, parse, review, splits, report."),
    "review": ("annotation.commands:review", "Discard, preserve or refine in the FiftyOne App, by keyboard."),
    "bench": ("ahp_toolkit.cli.main:bench", "Train, predict and score: the de-occlusion benchmark."),
    "predict": ("baselines.commands:predict_photo", "Complete the occluded people of a photo."),
    "doctor": ("ahp_toolkit.cli.build:doctor", "Say what is installed, what is missing, and how to get the rest."),
    "completion": (
        "ahp_toolkit.cli.completion:completion",
        "Complete commands and names in your shell by the Tab key.",
    ),
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all words of the command line, for `ahp` to look at when the log is open."""
        ctx.meta.setdefault(WORDS, tuple(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader of our output that has gone is no error (click would make it status 1)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(signals.broken_pipe()) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names and help lines without importing anything."""
        with formatter.section("Commands"):
            own = [(n, c.get_short_help_str(formatter.width)) for n, c in self.commands.items() if not c.hidden]
            formatter.write_dl([*((name, line) for name, (_, line) in self.table.items()), *own])


EPILOG = "\b\nExit status:\n" + "\n".join(f"  {n:<4} {when}" for n, when in signals.STATUSES.items())


@click.group(cls=Lazy, table=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ahp-toolkit", prog_name="ahp")
@click.option(
    "--log-json",
    type=Local(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Append what happens to FILE, one JSON object a line; - is stdout.",
)
@click.pass_context
def ahp(ctx: click.Context, log_json: Path | None) -> None:
    """Amodal Human Perception: build, review and benchmark occluded people with exact ground truth."""
    if log_json is not None:
        from ahp_toolkit import __version__

        logging.open_log(str(log_json), __version__)
    for word in ctx.meta[WORDS]:
        legible(word)


@click.group(cls=Lazy, table=BENCH, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """The de-occlusion benchmark: train and predict with the models, score and rank anybody's predictions."""


def main() -> None:
    """The console script: every end has its status (`exits.STATUSES`), every error one line on stderr."""
    signals.on_signals()
    status = _run()
    logging.close_log(status)
    sys.exit(status)


def _run() -> int:
    try:
        value = ahp(prog_name="ahp", standalone_mode=False)
        return value if type(value) is int else signals.OK  # a command's ctx.exit(n)
    except click.exceptions.Abort as e:  # click's name for Ctrl+C, and for an end of input
        cause = e.__cause__ or e
        return signals.failed(cause) if isinstance(cause, EOFError) else signals.stopped()
    except KeyboardInterrupt:
        return signals.stopped()
    except click.UsageError as e:
        return _misused(e)
    except click.ClickException as e:
        return _told(e.format_message())
    except (UserError, StorageError) as e:
        return _told(str(e))
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else signals.OK if e.code is None else signals.INTERNAL
    except Exception as e:  # noqa: BLE001 the last door: whatever comes here is told in one line, and logged whole
        return signals.stopped() if signals.signalled() else signals.failed(e)  # libraries replace what a signal raised


def _told(message: str) -> int:
    """The end by what a user did; not where a signal came, whose interrupt may have been taken for a bad photo."""
    return signals.stopped() if signals.signalled() else signals.user(message)


def _misused(e: click.UsageError) -> int:
    """click's three lines (usage, where to look, what is wrong) in one; a group without a command shows its help."""
    if isinstance(e, click.exceptions.NoArgsIsHelpError):
        e.show()
        return signals.USER
    said = e.format_message().rstrip(".")
    help_ = f"{e.ctx.command_path if e.ctx is not None else 'ahp'} --help"
    return signals.user(f"{said} See {help_}" if said.endswith("?") else f"{said}; see {help_}")


if __name__ == "__main__":
    main()
