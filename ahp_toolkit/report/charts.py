"""The one chart engine: bars, steps and curves with bands as SVG, for pages and as files.

Text is data and is escaped; colours and sizes are attributes, so that a chart is the same alone and inside a page. ::

    chart = Chart("Sizes", span("size, px", 0, 100), counts("humans", 12))
    chart.bars([(0, 50, 12), (50, 100, 3)], BLUE)
    svg = chart.svg()
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

#: One meaning, one colour, in every chart and in the report's style sheet.
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, ORANGE, GREEN, RED, VIOLET = "#3b76c4", "#e0893a", "#3f9c74", "#b93c28", "#7d64b5"
_LETTER = 6.6  # px, the mean width of a letter of 12 px


@dataclass(frozen=True)
class Axis:
    """The range [low, high] of one direction, its label, and its ticks as (place, text)."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()


def span(label: str, low: float, high: float, whole: bool = False) -> Axis:
    """An axis of numbers with five or so round ticks; ``whole``: ticks are whole numbers."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    step = max(1.0, step) if whole else step
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return Axis(label, low, high, [(round(k * step, 10), f"{round(k * step, 10):,.10g}") for k in places])


def counts(label: str, most: float) -> Axis:
    """An axis of counts from 0 to a little above ``most``."""
    return span(label, 0.0, max(1.0, most * 1.06), whole=True)


def names(texts: Sequence[str], label: str = "") -> Axis:
    """An axis of names, the first at its start, each with a room of 1."""
    return Axis(label, 0.0, float(len(texts)), [(k + 0.5, t) for k, t in enumerate(texts)])


@dataclass
class Chart:
    """A chart with an area of ``width`` x ``height`` px inside its axes; ``mark`` is red text at the top right."""

    title: str
    x: Axis
    y: Axis
    width: int = 440
    height: int = 230
    mark: str = ""
    across: bool = False  # grid lines are upright, for lying bars
    label: str = ""  # for people who cannot see it; the title, if empty
    _parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the axes in px of the drawing."""
        right = (x - self.x.low) / (self.x.high - self.x.low) * self.width
        return right, (self.y.high - y) / (self.y.high - self.y.low) * self.height

    def bars(self, bars: Iterable[tuple[float, float, float]], colours: str | Sequence[str]) -> None:
        """Upright bars (from, to, height), with a hair of room between them."""
        for k, (start, end, value) in enumerate(bars):
            room = 0.04 * (end - start)
            (x0, y0), (x1, y1) = self.at(start + room, max(value, self.y.low)), self.at(end - room, max(0, self.y.low))
            self._rectangle(x0, y0, x1 - x0, y1 - y0, colours if isinstance(colours, str) else colours[k])

    def lying(self, values: Sequence[float], colour: str) -> None:
        """Lying bars, one a name of the y axis, each with its value behind it."""
        for k, value in enumerate(values):
            (x, top), (_, bottom) = self.at(value, k + 0.86), self.at(value, k + 0.14)
            self._rectangle(0, top, x, bottom - top, colour)
            self.text(value, k + 0.5, f" {value:,.10g}", shift=(4, 4))

    def _rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def steps(self, edges: Sequence[float], values: Sequence[float], label: str) -> None:
        """A dashed outline of the values between the edges, with its label at the top right."""
        corners = [(x, v) for a, b, v in zip(edges[:-1], edges[1:], values, strict=True) for x in (a, b)]
        points = " ".join("{:.1f},{:.1f}".format(*self.at(*c)) for c in [(edges[0], 0.0), *corners, (edges[-1], 0.0)])
        dashes = f'fill="none" stroke="{INK}" stroke-width="1.6" stroke-dasharray="5 3"'
        self._parts.append(f'<polyline points="{points}" {dashes}/>')
        self.text(self.x.high, self.y.high, f"- - {label}", colour=INK, shift=(-4, 14))

    def curve(self, points: Sequence[tuple[float, float, float, float]], colour: str, name: str, key: int) -> None:
        """A line through (x, y, low, high) with dots, and a band where both bounds are known.

        It is a group of the class ``run`` with ``data-run`` ``key``, so that a page can hide it.
        """
        drawn = [(*self.at(x, v), self.at(x, a)[1], self.at(x, b)[1]) for x, v, a, b in points]
        bands = []
        for known, some in groupby(drawn, lambda p: math.isfinite(p[2]) and math.isfinite(p[3])):
            part = list(some)
            corners = [(x, a) for x, _, a, _ in part] + [(x, b) for x, _, _, b in reversed(part)]
            if known:
                shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
                bands.append(f'<polygon points="{shape}" fill="{colour}" opacity=".10"/>')
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in drawn)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y, _, _ in drawn)
        self._parts.append(
            f'<g class="run" data-run="{key}"><title>{escape(name)}</title>{"".join(bands)}'
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.2"/>{dots}</g>'
        )

    def text(self, x: float, y: float, text: str, colour: str = MUTED, shift: tuple[float, float] = (0, 0)) -> None:
        """Text at a point of the axes, moved by ``shift`` px; it ends there, or begins there if moved to the right."""
        px, py = self.at(x, y)
        self._parts.append(_text(px + shift[0], py + shift[1], text, "start" if shift[0] > 0 else "end", colour))

    def svg(self) -> str:
        """The chart as one ``svg`` element; a file of it is a picture."""
        longest = max((len(t) for _, t in self.y.ticks), default=0)
        left = 14 + _LETTER * longest + (18 if self.y.label else 0)
        top, bottom = 34 if self.title or self.mark else 14, 44 if self.x.label else 26
        bold = 'font-weight="700"'
        out = [_text(-left + 4, -16, self.title, "start", INK, f'{bold} font-size="14"')]
        out.append(_text(self.width + 10, -18, self.mark, "end", RED, f'{bold} font-size="11"'))
        for place, name in self.y.ticks:
            y = self.at(self.x.low, place)[1]
            out.append(_text(-8, y + 4, name, "end"))
            if not self.across:
                out.append(f'<line x1="0" x2="{self.width}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        for place, name in self.x.ticks:
            x = self.at(place, self.y.low)[0]
            out.append(_text(x, self.height + 18, name, "middle"))
            if self.across:
                out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{self.height}" stroke="{GRID}"/>')
        out.append(_text(self.width / 2, self.height + 38, self.x.label, "middle", INK))
        turned = f'transform="rotate(-90 {-left + 12:.1f} {self.height / 2:.1f})"'
        out.append(_text(-left + 12, self.height / 2, self.y.label, "middle", INK, turned))
        box = f"{-left:.1f} {-top} {left + self.width + 14:.1f} {top + self.height + bottom}"
        size = f'width="{left + self.width + 14:.0f}" height="{top + self.height + bottom}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="{box}" {size} role="img" '
            f'aria-label="{escape(self.label or self.title)}" '
            'font-family="system-ui, DejaVu Sans, sans-serif" font-size="12">'
            f"{''.join(out)}{''.join(self._parts)}</svg>"
        )


def _text(x: float, y: float, text: str, anchor: str, colour: str = MUTED, more: str = "") -> str:
    if not text:
        return ""
    more = f" {more}" if more else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(text)}</text>'
