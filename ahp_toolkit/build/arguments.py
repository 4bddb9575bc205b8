"""What the options of ``ahp build`` say, as values: callbacks that refuse in one line what makes no sense."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.options import Folder
from ahp_toolkit.sources import SOURCES

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def source(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, Path]]:
    """[NAME:]FORMAT=PATH as {NAME: (FORMAT, PATH)}; each name once, each format known, each path a folder."""
    out: dict[str, tuple[str, Path]] = {}
    for value in values:
        left, equals, path = value.partition("=")
        name, colon, kind = left.rpartition(":")
        name = name if colon else kind
        if not equals or not path:
            raise UserError(f"--source {value}: expected [NAME:]FORMAT=PATH, such as coco=/data/coco")
        SOURCES.get(kind)
        if not _NAME.fullmatch(name):
            raise UserError(f"--source {value}: expected a NAME of letters, digits, - and _, got {name!r}")
        if name in out:
            raise UserError(f"--source {name} is given twice; give the second a name of its own: NAME:{kind}={path}")
        out[name] = kind, Folder().convert(path, None, None)
        if not out[name][1].is_dir():
            raise UserError(f"--source {name}: expected the dataset's folder, {path} is none")
    return out


def densities(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """SPLIT=DENSITY, split and density both known; of two words on a split the later counts."""
    if not values:
        return {}
    from ahp_toolkit.occlusion.densities import parse

    out = {}
    for value in values:
        split, equals, text = value.partition("=")
        if not equals or split not in ("train", "val", "test"):
            raise UserError(f"--density {value}: expected SPLIT=DENSITY, such as val=0-0.1:1,0.1-0.2:1")
        parse(text)
        out[split] = text
    return out


def occluders(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of sources, commas or repeated; or ``all``."""
    return tuple(dict.fromkeys(n.strip() for value in values for n in value.split(",")))


def fold(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """K/N, K from 1 to N, N of 2 or more."""
    if value is None:
        return None
    k, slash, n = value.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) and int(n) >= 2):
        raise UserError(f"--fold {value}: expected K/N with N of 2 or more and K from 1 to N, such as 1/5")
    return int(k), int(n)
