"""Settings written once: a dataclass field is a click option, an entry of ``build.json`` and a row of the reference.

A settings class is a frozen dataclass whose fields are made by `option`; a field may be a settings class itself. Field
names are unique in the whole tree, so the JSON object of a tree is flat.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says of itself.

    Attributes:
        help: one or two sentences.
        unit: of the number, such as px.
        flag: the option's name where it is not the field's, such as ``--val-humans``; "" for a field without option.
        type: makes the click type; None: the type follows from the annotation.
        parse: makes the field's value of what click parsed; raises `UserError`.
        click: further keyword arguments of `click.option`.
        stored: whether the value belongs into ``build.json``.
    """

    help: str
    unit: str = ""
    flag: str | None = None
    type: Callable[[], click.ParamType] | None = None
    parse: Callable[[Any], Any] | None = None
    click: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stored: bool = True


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of a settings class; ``facts`` are those of `Option`."""
    metadata = {"option": Option(help=help, **facts)}
    if callable(default) or isinstance(default, dict):
        make = default if callable(default) else functools.partial(dict, default)
        return dataclasses.field(default_factory=make, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a settings tree with its annotation and its default."""

    name: str
    annotation: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The option on the command line; "" for none."""
        return f"--{self.name.replace('_', '-')}" if self.option.flag is None else self.option.flag


def nodes(cls: type) -> dict[str, type]:
    """The fields of a settings class that are settings classes themselves."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[f.name])}


def leaves(cls: type) -> tuple[Field, ...]:
    """The fields of one settings class that hold a value, in their order."""
    hints = typing.get_type_hints(cls)
    found = []
    for f in dataclasses.fields(cls):
        if "option" in f.metadata:
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            found.append(Field(f.name, hints[f.name], default, f.metadata["option"]))
    return tuple(found)


def every(cls: type) -> Iterator[Field]:
    """All fields of a tree that hold a value: a class's own, then those of its nodes."""
    yield from leaves(cls)
    for node in nodes(cls).values():
        yield from every(node)


def options_of(*classes: type) -> Callable[[F], F]:
    """A decorator that gives a click command the options of settings classes; see `made`."""

    def decorate(command: F) -> F:
        for field in reversed([f for cls in classes for f in every(cls) if f.flag]):
            command = _click(field)(command)
        return command

    return decorate


def _click(field: Field) -> Callable[[F], F]:
    o = field.option
    text = f"{o.help}, {o.unit}." if o.unit else o.help
    settings: dict[str, Any] = {"help": text, "default": field.default, "show_default": True}
    optional = _required(field.annotation)
    names = field.flag.split()
    if field.annotation is bool:
        settings |= {"is_flag": True, "show_default": bool(field.default)}
        names = [f"{n}/--no-{n[2:]}" for n in names] if field.default else names
    else:
        settings["type"] = o.type() if o.type else {int: click.INT, float: click.FLOAT}.get(optional, click.STRING)
    if field.default is None or typing.get_origin(optional) in (tuple, dict):
        settings |= {"default": None, "show_default": False}
    if typing.get_origin(optional) is dict or typing.get_args(optional)[1:] == (...,):
        settings["multiple"] = True
    return click.option(*names, field.name, **settings | dict(o.click))


def _required(annotation: Any) -> Any:
    """The annotation without ``| None``."""
    if typing.get_origin(annotation) is types.UnionType:
        return next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return annotation


def made(cls: type[T], given: Mapping[str, Any]) -> T:
    """A settings tree from the keyword arguments of a click command; what is not given has its default.

    Raises:
        UserError: for a value that makes no sense.
    """
    values: dict[str, Any] = {name: made(node, given) for name, node in nodes(cls).items()}
    for field in leaves(cls):
        value = given.get(field.name)
        if value is None or value == ():
            continue
        values[field.name] = field.option.parse(value) if field.option.parse else value
    return cls(**values)


def as_json(settings: Any) -> dict[str, Any]:
    """The stored values of a tree by field name, as JSON-like values."""
    cls = type(settings)
    found = {f.name: getattr(settings, f.name) for f in leaves(cls) if f.option.stored}
    flat: dict[str, Any] = dict(msgspec.to_builtins(found, enc_hook=str))
    for name in nodes(cls):
        flat |= as_json(getattr(settings, name))
    return dict(sorted(flat.items()))


def from_json(cls: type[T], stored: Mapping[str, Any]) -> T:
    """The tree that `as_json` wrote; what it does not hold has its default.

    Raises:
        msgspec.ValidationError: for a value of another type.
    """
    values: dict[str, Any] = {name: from_json(node, stored) for name, node in nodes(cls).items()}
    for field in leaves(cls):
        if field.option.stored and field.name in stored:
            values[field.name] = msgspec.convert(stored[field.name], field.annotation, dec_hook=_decoded)
    return cls(**values)


def _decoded(kind: type, value: Any) -> Any:
    return Path(value) if issubclass(kind, Path) else value


def reference(cls: type) -> str:
    """A tree as Markdown: one table of options a settings class."""
    rows = [f for f in leaves(cls) if f.flag]
    text = ""
    if rows:
        text = f"## {(cls.__doc__ or cls.__name__).splitlines()[0].rstrip('.')}\n\n"
        text += "| option | value | default | meaning |\n|---|---|---|---|\n"
        text += "".join(f"| `{f.flag}` | {_kind(f)} | {_shown(f.default)} | {_cell(f.option.help)} |\n" for f in rows)
        text += "\n"
    return text + "".join(reference(node) for node in nodes(cls).values())


def _kind(field: Field) -> str:
    o = field.option
    kind = o.type() if o.type else None
    if isinstance(kind, click.Choice):
        return _cell(" \\| ".join(map(str, kind.choices)))
    plain = {bool: "yes or no", int: "whole number", float: "number", Path: "path"}.get(
        _required(field.annotation), "text"
    )
    return o.unit or o.click.get("metavar") or plain


def _shown(default: Any) -> str:
    return (
        "" if default is None or default in ((), {}) else f"`{default}`".replace("True", "yes").replace("False", "no")
    )


def _cell(text: str) -> str:
    return " ".join(text.split())
