"""``ahp``: a lazy click group that knows its commands by "module:name" only, so that ``ahp --help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ahp_toolkit.core.errors import StorageError, UserError, missing_extra
from ahp_toolkit.runtime import logging, signals
from ahp_toolkit.runtime.lazy_group import ARGUMENTS, LazyGroup, Table
from ahp_toolkit.runtime.options import Local, legible

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
    "open": ("annotation.app.commands:open_", "Several runs' predictions beside the truth, in the FiftyOne App."),
}
COMMANDS: Table = {
    "demo": ("ahp_toolkit.cli.demo:demo", "See the whole pipeline work on an embedded, procedural world."),
    "build": ("ahp_toolkit.cli.build:build", "Build the dataset: harvest, segment, parse, review, splits, report."),
    "review": ("annotation.commands:review", "Discard, preserve or refine in the FiftyOne App, by keyboard."),
    "bench": ("ahp_toolkit.cli.main:bench", "Train, predict and score: the de-occlusion benchmark."),
    "predict": ("baselines.commands:predict_photo", "Complete the occluded people of a photo."),
    "convert": ("ahp_toolkit.cli.convert:convert", "Write annotations in another format, without a build."),
    "doctor": ("ahp_toolkit.cli.doctor:doctor", "Say what is installed, what is missing, and how to get the rest."),
}


EPILOG = "\b\nExit status:\n" + "\n".join(f"  {n:<4} {when}" for n, when in signals.STATUSES.items())


@click.group(cls=LazyGroup, table=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
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
    for argument in ctx.meta[ARGUMENTS]:
        legible(argument)


@click.group(cls=LazyGroup, table=BENCH, context_settings={"help_option_names": ["-h", "--help"]})
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
        return _user_error(e.format_message())
    except (UserError, StorageError) as e:
        return _user_error(str(e))
    except ModuleNotFoundError as e:
        absent = missing_extra(e)
        return signals.failed(e) if absent is None else _user_error(str(absent))
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else signals.OK if e.code is None else signals.INTERNAL
    except Exception as e:  # noqa: BLE001 the last door: one line on stderr, the whole in the log
        return signals.stopped() if signals.signalled() else signals.failed(e)  # libraries replace what a signal raised


def _user_error(message: str) -> int:
    """The end by what a user did; not where a signal came, whose interrupt may have been taken for a bad photo."""
    return signals.stopped() if signals.signalled() else signals.user(message)


def _misused(e: click.UsageError) -> int:
    """click's three lines (usage, where to look, what is wrong) in one; a group without a command shows its help."""
    if isinstance(e, click.exceptions.NoArgsIsHelpError):
        e.show()
        return signals.USER
    message = e.format_message().rstrip(".")
    help_ = f"{e.ctx.command_path if e.ctx is not None else 'ahp'} --help"
    return signals.user(f"{message} See {help_}" if message.endswith("?") else f"{message}; see {help_}")


if __name__ == "__main__":
    main()
