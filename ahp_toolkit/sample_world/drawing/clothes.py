"""What people wear and how they look: outfits, cloth patterns, skin, hair. Both sides wear the same cloth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.sample_world.drawing.raster import material
from ahp_toolkit.sources.base import PARTS

Colour = tuple[int, int, int]
Material = NDArray[np.float64]
#: Part name -> label value of LIP's 20 classes.
PART = {name: i for i, name in enumerate(PARTS)}
SKINS: tuple[Colour, ...] = (
    (243, 208, 182), (232, 190, 158), (222, 173, 138), (200, 147, 108), (168, 115, 80), (128, 84, 56), (92, 60, 42),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (32, 26, 24), (54, 38, 28), (88, 58, 36), (124, 82, 46), (176, 132, 76), (214, 180, 120), (150, 148, 146),
    (140, 62, 34),
)  # fmt: skip
CLOTHS: tuple[Colour, ...] = (
    (34, 44, 72), (48, 84, 140), (104, 154, 206), (182, 46, 44), (214, 98, 52), (232, 186, 66), (62, 110, 72),
    (132, 160, 96), (236, 234, 228), (206, 206, 204), (118, 120, 124), (52, 52, 56), (128, 68, 112), (222, 148, 168),
    (92, 66, 50), (178, 150, 116), (40, 118, 122), (96, 32, 44),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (44, 58, 92), (72, 96, 140), (38, 38, 42), (96, 92, 88), (166, 146, 112), (70, 74, 56), (104, 74, 54),
    (206, 200, 188),
)  # fmt: skip
SHOES: tuple[Colour, ...] = (
    (36, 34, 34), (92, 60, 40), (230, 228, 222), (168, 40, 40), (52, 76, 128), (128, 128, 130), (60, 110, 80),
)  # fmt: skip
HAIR_STYLES = ("short", "short", "crop", "bob", "long", "long", "bun", "tail", "afro", "bald")


@dataclass(frozen=True, slots=True)
class Outfit:
    """Everything about a person's looks. Lengths: sleeves 0 (none) to 2 (wrist), legs 0 (hip) to 2 (ankle)."""

    skin: Material
    hair: Material
    hair_style: str
    fringe: float
    beard: bool
    lips: Material
    top: str  # shirt, dress, jumpsuit
    top_cloth: Material
    sleeve_cloth: Material
    sleeve: float
    bottom: str  # trousers, skirt
    bottom_cloth: Material
    leg: float
    coat: Material | None
    coat_open: bool
    socks: Material | None
    sock_height: float
    shoe: Material
    sole: Material
    hat: str  # "", cap, beanie, brim
    hat_cloth: Material
    glasses: bool
    scarf: Material | None
    gloves: Material | None
    bag: str  # "", backpack, shoulder
    bag_cloth: Material

    @property
    def top_label(self) -> int:
        """The LIP label of the main garment."""
        return PART[{"shirt": "upper-clothes", "dress": "dress", "jumpsuit": "jumpsuits"}[self.top]]

    @property
    def outer_label(self) -> int:
        """The LIP label of what is seen on the trunk: the coat where one is worn."""
        return PART["coat"] if self.coat is not None else self.top_label


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    c = colours[int(rng.integers(len(colours)))]
    j = rng.integers(-12, 13, 3)
    return tuple(int(min(245, max(18, v + d))) for v, d in zip(c, j, strict=True))  # type: ignore[return-value]


def _lighter(colour: Colour) -> Colour:
    r, g, b = (min(255, int(v * 1.35 + 8)) for v in colour)
    return r, g, b


def _contrast(rng: np.random.Generator, colour: Colour) -> Colour:
    for _ in range(8):
        second = _pick(rng, CLOTHS)
        if sum(abs(a - b) for a, b in zip(colour, second, strict=True)) > 150:
            break
    return second


def _cloth(rng: np.random.Generator, plain: float = 0.35) -> Material:
    colour = _pick(rng, CLOTHS)
    kinds = ("rings", "lines", "checks", "dots", "two-tone", "logo", "plaid")
    kind = "plain" if rng.random() < plain else kinds[int(rng.integers(len(kinds)))]
    size = {"rings": 5.0, "lines": 4.0, "checks": 5.0, "dots": 4.4, "two-tone": 11.0, "logo": 4.2, "plaid": 6.0}.get(
        kind, 4
    )
    return material(kind, colour, _contrast(rng, colour), size * (0.8 + 0.5 * rng.random()), 0.34, 0.05)


def _sleeve(rng: np.random.Generator, top: Material) -> Material:
    """The sleeves' cloth: as the trunk, or raglan (the second colour); logos and yokes stay on the trunk."""
    out = top.copy()
    if top[0] in (5, 6):
        out[0] = 0
    if rng.random() < 0.18:
        out[0] = 0
        out[1:4] = top[4:7]
    return out


def sample_outfit(rng: np.random.Generator, female: bool) -> Outfit:
    """A random outfit. Two draws with the same generator state are the same."""
    skin, hair = _pick(rng, SKINS), _pick(rng, HAIRS)
    kind = rng.random()
    top = "dress" if female and kind < 0.26 else ("jumpsuit" if kind > 0.88 else "shirt")
    cold = bool(rng.random() < 0.38)
    cloth = _cloth(rng, 0.6 if top == "jumpsuit" else 0.3)
    bottom_colour = _pick(rng, TROUSERS)
    skirt = female and top == "shirt" and rng.random() < 0.4
    leg = 2.0 if cold else float(rng.choice([0.62, 0.95, 1.5, 2.0, 2.0, 2.0]))
    coat = material("plain", _pick(rng, CLOTHS), fold=0.3, grain=0.1) if cold and rng.random() < 0.75 else None
    styles = HAIR_STYLES[3:9] if female else HAIR_STYLES[:3] + HAIR_STYLES[4:5] + HAIR_STYLES[8:]
    shoe = _pick(rng, SHOES)
    hat = ("cap", "beanie", "brim")[int(rng.integers(3))] if rng.random() < 0.26 else ""
    bag = ("backpack", "shoulder")[int(rng.integers(2))] if rng.random() < 0.2 else ""
    accent = _pick(rng, CLOTHS)
    return Outfit(
        skin=material("plain", skin, fold=0.06, grain=0.03),
        hair=material("streaks", hair, _lighter(hair), 1.1),
        hair_style=styles[int(rng.integers(len(styles)))],
        fringe=float(rng.random()),
        beard=bool(not female and rng.random() < 0.25),
        lips=material("plain", (int(skin[0] * 0.82), int(skin[1] * 0.58), int(skin[2] * 0.58))),
        top=top,
        top_cloth=cloth,
        sleeve_cloth=_sleeve(rng, cloth),
        sleeve=2.0 if cold else float(rng.choice([0.0, 0.55, 0.62, 0.7, 1.4, 2.0])),
        bottom="skirt" if skirt else "trousers",
        bottom_cloth=_cloth(rng, 0.4) if skirt else _trousers(rng, bottom_colour),
        leg=leg if top != "jumpsuit" else max(leg, 1.5),
        coat=coat,
        coat_open=bool(rng.random() < 0.6),
        socks=_socks(rng) if rng.random() < 0.55 else None,
        sock_height=float(rng.choice([0.25, 0.45, 0.9])),
        shoe=material("plain", shoe, grain=0.1),
        sole=material("plain", (226, 224, 218) if sum(shoe) < 330 else (70, 66, 62)),
        hat=hat,
        hat_cloth=material("rings" if hat == "beanie" else "plain", accent, _contrast(rng, accent), 5.0, 0.1, 0.12),
        glasses=bool(rng.random() < 0.16),
        scarf=_cloth(rng, 0.3) if (cold and rng.random() < 0.45) or rng.random() < 0.05 else None,
        gloves=_gloves(rng) if (cold and rng.random() < 0.4) or rng.random() < 0.05 else None,
        bag=bag,
        bag_cloth=material("plain", _pick(rng, CLOTHS), fold=0.2, grain=0.12),
    )  # fmt: skip


def _socks(rng: np.random.Generator) -> Material:
    return material("rings" if rng.random() < 0.4 else "plain", _pick(rng, CLOTHS), size=4.0)


def _gloves(rng: np.random.Generator) -> Material:
    return material("plain", _pick(rng, CLOTHS), grain=0.1)


def _trousers(rng: np.random.Generator, colour: Colour) -> Material:
    if rng.random() < 0.12:
        return material("plaid", colour, _contrast(rng, colour), 6.0, 0.3)
    if rng.random() < 0.12:
        return material("lines", colour, _contrast(rng, colour), 9.0, 0.3)
    return material("plain", colour, fold=0.36, grain=0.12)
