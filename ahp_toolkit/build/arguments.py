"""What the options of ``ahp build`` say, as values: callbacks that refuse in one line what makes no sense."""

from __future__ import annotations

from pathlib import Path

import click

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.options import Folder
from ahp_toolkit.sources import SOURCES


def source(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """NAME=PATH, each name once and known, each path a folder."""
    out: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or not path:
            raise UserError(f"--source {value}: expected NAME=PATH, such as coco=/data/coco")
        SOURCES.get(name)
        if name in out:
            raise UserError(f"--source {name} is given twice; one data root a source")
        out[name] = Folder().convert(path, None, None)
        if not out[name].is_dir():
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
    if not values:
        return ()
    from ahp_toolkit.build.splits import EVERY

    names = tuple(dict.fromkeys(n.strip() for value in values for n in value.split(",")))
    for name in names:
        if name != EVERY:
            SOURCES.get(name)
    return names


def fold(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """K/N, K from 1 to N, N of 2 or more."""
    if value is None:
        return None
    k, slash, n = value.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) and int(n) >= 2):
        raise UserError(f"--fold {value}: expected K/N with N of 2 or more and K from 1 to N, such as 1/5")
    return int(k), int(n)
