"""``ahp review``: the App for one reviewer. The subcommands are imported when they are called."""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import re
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.lazy_group import LazyGroup
from ahp_toolkit.runtime.options import Number
from annotation.app.options import Opening, opening_options
from annotation.session.build_check import REVIEWED, check_build

#: name -> (module:attribute, one line of help); nothing is imported until a command runs
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "status": ("annotation.session.commands:status", "Counts, pace, agreement and the preserved ratio."),
    "triage": ("annotation.session.commands:triage", "Order the queue and propose discards under a stated risk."),
    "export": ("annotation.exchange.commands:export", "Decisions as CSV or Parquet, masks as COCO JSON or PNG."),
    "import": ("annotation.exchange.commands:import_", "Decisions and corrected masks made with any other tool."),
    "resegment": ("annotation.exchange.commands:resegment", "Another segmenter's masks for the people to refine."),
    "compose": (
        "annotation.composites.commands:compose",
        "Propose real composites for the test split; write those passed.",
    ),
}
#: Candidates in one App: more are warned of; what is proposed then.
MOST, GOOD = 50_000, 20_000


@click.group(
    cls=LazyGroup,
    table=SUBCOMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--root", type=REVIEWED, help="The build folder, finished at least up to parse.")
@click.option("--reviewer", help="Your name, for your log and your fields; default: your user name.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Where the App listens. It has no password: keep to the loopback and tunnel by ssh.",
)
@click.option("--overlap", type=Number(0, 1), default=0.0, show_default=True, help="Share seen by several.")
@click.option("--copies", type=click.IntRange(2), default=2, show_default=True, help="Reviewers of an overlapping one.")
@click.option("--shard", "reviewers", multiple=True, metavar="NAME", help="Divide by hash among these; else one queue.")
@click.option(
    "--slice",
    "piece",
    default="1/1",
    show_default=True,
    metavar="K/N",
    help="Hold the K-th of N pieces of the candidates; all decisions go to the same logs. For more than 50,000.",
)
@opening_options("Bring the candidates into the database, reconcile, and stop.")
def review(root: Path | None, reviewer: str | None, address: str, piece: str, opening: Opening, **sharing: Any) -> None:
    """Review the people of a build by keyboard, in the FiftyOne App. Ctrl+C ends; no saved decision is ever lost."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    if root is None:
        raise UserError("ahp review: expected --root with a build folder (the --out of ahp build)")
    check_build(root)
    from ahp_toolkit.decisions.candidates import Slice
    from ahp_toolkit.decisions.log import check_name
    from annotation.app import server
    from annotation.session.queue import Plan
    from annotation.session.session import PLAN_VARIABLE

    name = check_name(reviewer or default_reviewer())
    plan = Plan("shards" if sharing["reviewers"] else "shared", **sharing)
    if plan.reviewers and name not in plan.reviewers:
        raise UserError(
            f"{name} is none of --shard {', '.join(plan.reviewers)} and would have an empty queue; give --reviewer"
        )
    os.environ[PLAN_VARIABLE] = json.dumps(asdict(plan))
    part = Slice.parse(piece)
    _hint(root, part.of)
    if opening.check:
        dataset = server.prepare(root, name, click.echo, part)
        click.echo(f"{dataset.name}: {len(dataset)} candidates")
        return
    if not _loopback(address):
        warning = f"The App listens on {address}: whoever reaches this port can review as you"
        click.echo(f"{warning}, and read every file that you can read.", err=True)
    with server.serving(root, name, opening.port, address, click.echo, part) as session:
        url = f"http://{address}:{session.server_port}/datasets/{session.dataset.name}"
        click.echo(f"{name} reviews {root} at {url} (Ctrl+C ends)")
        if opening.browser:
            webbrowser.open(url)
        session.wait(-1)


def default_reviewer() -> str:
    """The user's name, made fit for a file and a field."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", getpass.getuser())
    return name if name[:1].isalpha() else f"u{name}"


def _hint(root: Path, pieces: int) -> None:
    """Warn where one App holds more candidates than it answers quickly with."""
    from ahp_toolkit.storage.parquet import count_records

    total = count_records(root / "parse")
    if total > MOST * pieces:
        few = -(-total // GOOD)
        click.echo(
            f"{total // pieces} candidates for one App, which slows down beyond {MOST}: give --slice 1/{few}, and "
            f"others --slice 2/{few} and so on; all decisions go to the same logs",
            err=True,
        )


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
