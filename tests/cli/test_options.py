"""The option types, over all commands: no number that is none, no path without a name, no name in other bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click
import pytest

from ahp_toolkit.cli import main
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.options import Folder, Local, Named
from tests.cli.small import ahp, events

NO_UTF8 = os.fsdecode(b"bad\xff")


def parameters() -> Iterator[tuple[click.Command, click.Parameter]]:
    """Every parameter of every command."""
    todo: list[click.Command] = [main.ahp]
    while todo:
        command = todo.pop()
        yield from ((command, p) for p in command.params)
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            todo += [c for n in command.list_commands(ctx) if (c := command.get_command(ctx, n))]


def kinds(parameter: click.Parameter) -> list[click.ParamType]:
    return list(parameter.type.types) if isinstance(parameter.type, click.Tuple) else [parameter.type]


def those(*types: type) -> list:
    return [
        pytest.param(p, k, id=f"{c.name} {p.opts[0]}")
        for c, p in parameters()
        for k in kinds(p)
        if isinstance(k, types)
    ]


@pytest.mark.parametrize(("parameter", "kind"), those(click.types.FloatParamType))
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_every_number_is_finite(parameter, kind, text):
    with pytest.raises(click.BadParameter):
        kind.convert(text, parameter, None)


@pytest.mark.parametrize(("parameter", "kind"), those(click.Path, Named))
def test_every_path_has_a_name_in_utf8(parameter, kind):
    assert isinstance(kind, (Folder, Local, Named))
    name = parameter.opts[0] if isinstance(parameter, click.Option) else "path"
    with pytest.raises(UserError, match=f"^{name} '': expected a .* got an empty name"):
        kind.convert("", parameter, None)
    for text in (NO_UTF8, f"s3://b/{NO_UTF8}"):
        with pytest.raises(UserError, match=r"bad\\xff: expected a name in UTF-8|takes a local"):
            kind.convert(text, parameter, None)


def test_the_walk_sees_all_commands():
    names = {c.name for c, _ in parameters()}
    assert {"build", "materialize", "triage", "compose", "score", "paper", "predict", "demo", "segmenter"} <= names
    assert len(those(click.types.FloatParamType)) >= 11 and len(those(click.Path)) > 45


@pytest.mark.parametrize(
    "args",
    [
        ("build", "--source", "coco=.", "--out", NO_UTF8),
        ("build", "--source", f"coco={NO_UTF8}", "--out", "o"),
        ("bench", "train", NO_UTF8, "--task", "mask", "--root", "o"),
        ("predict", NO_UTF8, "--mask-run", "m", "--content-run", "c", "--out", "o"),
        ("--log-json", NO_UTF8, "doctor"),
    ],
    ids=["out", "source", "argument", "photo", "log"],
)
def test_a_name_in_other_bytes_is_refused_in_one_line_and_logged(tmp_path, args):
    more = () if args[0] == "--log-json" else ("--log-json", tmp_path / "log.jsonl")
    out = ahp(*more, *args)
    assert out.returncode == 2 and len(out.stderr.splitlines()) == 1, out.stderr
    assert "bad\\xff: expected a name in UTF-8" in out.stderr
    if more:
        found = events(tmp_path / "log.jsonl")
        assert [e["event"] for e in found] == ["run_start", "error", "run_end"]
        assert any(NO_UTF8 in word for word in found[0]["argv"])
    assert not os.path.lexists(NO_UTF8)


def test_a_log_takes_any_bytes(tmp_path):
    logging.open_log(str(tmp_path / "log"), "0")
    for message in (f"photo {NO_UTF8}", "the next line"):
        logging.event("message", message=message)
    logging.close_log(0)
    found = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [e.get("message") for e in found] == [None, f"photo {NO_UTF8}", "the next line", None]
