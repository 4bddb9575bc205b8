"""What users set, checked at birth: a field says its type and, by ``Annotated``, its range or its choices."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import sys
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.checkpoints import MAX_NUMBER


@dataclass(frozen=True)
class Between:
    """``low`` to ``high``, both allowed unless ``open_low`` or ``open_high``; a multiple of ``step`` where given."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    step: int = 0

    def allows(self, value: Any) -> bool:
        """Whether a number lies in the range."""
        below = value < self.low or (self.open_low and value == self.low)
        above = value > self.high or (self.open_high and value == self.high)
        return not (below or above or (self.step and value % self.step))

    def __str__(self) -> str:
        if self.step:
            most = "" if self.high == math.inf else f", at most {self.high:g}"
            return f"that is a positive multiple of {self.step}{most}"
        low = f"above {self.low:g}" if self.open_low else f"of {self.low:g} or more"
        if self.high == math.inf:
            return low
        return low + (f" and below {self.high:g}" if self.open_high else f", at most {self.high:g}")


@dataclass(frozen=True)
class OneOf:
    """One of a few names or numbers."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return "that is one of " + ", ".join(map(str, self.values))


#: Numbers that make an architecture: no checkpoint with larger ones is built.
Size = Annotated[int, Between(64, MAX_NUMBER, step=64)]
Width = Annotated[int, Between(4, MAX_NUMBER)]
Count = Annotated[int, Between(1, MAX_NUMBER)]
Natural = Annotated[int, Between(0, MAX_NUMBER)]
#: Of a training, not of a network.
Steps = Annotated[int, Between(1)]
Weight = Annotated[float, Between(0)]
Share = Annotated[float, Between(0, 1)]
Threshold = Annotated[float, Between(0, 1, open_low=True, open_high=True)]
GanKind = Annotated[str, OneOf(("bce", "log", "hinge", "lsgan"))]

_KINDS = {int: "an int", float: "a finite number", str: "a text", bool: "a bool"}


@functools.cache
def _rules(cls: type) -> dict[str, tuple[tuple[type, ...], tuple[Any, ...]]]:
    """Of each field: the plain types that are checked (none: whatever it is), and its ranges."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kinds: list[type] = []
        ranges: list[Any] = []
        several = get_origin(hint) in (Union, types.UnionType)
        for part in get_args(hint) if several else (hint,):
            if get_origin(part) is Annotated:
                part, *more = get_args(part)
                ranges += more
            if get_origin(part) is Literal:
                ranges.append(OneOf(get_args(part)))
                part = str
            kinds.append(part)
        known = all(k in _KINDS or k is type(None) for k in kinds)
        found[name] = (tuple(kinds) if known else (), tuple(ranges))
    return found


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for nan, inf and 10**400
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))  # to Python True is an int


def check_fields(made: Any, prefix: str = "") -> None:
    """Check every field of a dataclass object against its type, its range and its choices.

    Args:
        prefix: goes before the field's name in the error: what the user must type.

    Raises:
        UserError: for the first field that does not fit: its name, what was expected, what came.
    """
    cls: type = type(made)
    rules = _rules(cls)
    for f in dataclasses.fields(made):
        value, (kinds, ranges) = getattr(made, f.name), rules[f.name]
        if value is None and type(None) in kinds:
            continue
        fits = not kinds or any(_is_a(value, k) for k in kinds)
        if not fits or not all(r.allows(value) for r in ranges):
            what = " or ".join(_KINDS[k] for k in kinds if k in _KINDS)
            expected = " ".join([what, *map(str, ranges)])
            raise UserError(f"setting {prefix}{f.name} must be {expected}, got {value!r}")


def refuse_name(setting: str, value: str, known: Collection[str]) -> UserError:
    """The error for a name that a library does not list, with the nearest one it does."""
    near = difflib.get_close_matches(value, known, 1)
    hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(list(known)[:12])
    return UserError(f"setting {setting} must be one of the library's {len(known)} names, got {value!r}; {hint}")


@dataclass(frozen=True)
class Settings:
    """What all models share. ``size``: training crop in px, divisible by 64; ``vgg``: see `losses.vgg16`.

    Raises:
        UserError: for a value of the wrong type or out of its range.
    """

    size: Size = 256
    width: Width = 64
    vgg: str = "auto"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SharedMaskSettings(Settings):
    """What every mask model can be given beyond its own paper (the aids); the defaults are the paper's form.

    ``carried``: both masks are changes of the initial mask; ``two``: a second head gives the modal mask; ``hidden``: a
    pixel is invisible where P(amodal) - P(modal) is over it, in place of each mask by itself (0). The cut of most
    expected IoU is IoU / (1 + IoU): a third where a half is to be had.
    """

    carried: bool = False
    two: bool = False
    hidden: Annotated[float, Between(0, 1, open_high=True)] = 0.0


@dataclass(frozen=True)
class SharedContentSettings(Settings):
    """``loss``: whether l1 is a mean over the invisible pixels ("hole") or the "whole" crop; the default is the paper's
    form.
    """

    loss: Annotated[str, OneOf(("hole", "whole"))] = "whole"


SHARED = ("carried", "two", "hidden", "loss")


def aids_of(own: Settings, chosen: Mapping[str, Any]) -> list[str]:
    """The shared settings of ``chosen`` that are not the model's ``own``, as ``name=value``; empty: as published."""
    return [f"{n}={_plain(chosen[n])}" for n in SHARED if n in chosen and chosen[n] != getattr(own, n)]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.3g}" if isinstance(value, float) else str(value)


S = TypeVar("S", bound=Settings)


def make_settings(cls: type[S], given: Mapping[str, Any]) -> S:
    """A settings object from keywords.

    Raises:
        UserError: for an unknown setting (with the nearest known one), a value of the wrong type or out of its range.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
            raise UserError(f"{cls.__module__.rpartition('.')[2]} has no setting {name!r}; {hint}")
        whole = isinstance(known[name].default, float) and type(value) is int and abs(value) < 2**53
        chosen[name] = float(value) if whole else value  # 10 and 10.0 are one setting
    return cls(**chosen)
