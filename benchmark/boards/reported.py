"""Figures that papers report on AHP (spec §6): shown apart with their source, never ranked with measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_PAPER = "Zhou et al., CVPR 2021"


@dataclass(frozen=True, slots=True)
class Reported:
    """One method's figures as its paper prints them; ``data`` says on which images."""

    board: str
    method: str
    data: str
    source: str
    figures: dict[str, str]
    protocol: str = "not defined by the paper"


_SETS = ("AHP val, synthesized (891)", "AHP test, real (15)")
#: Table 2: l1, IoU amodal, IoU invisible; synthesized, then real.
_TABLE_2 = {
    "Mask R-CNN": (".2402 78.4 26.9", ".2961 72.4 26.3"),
    "DeepLab": (".2087 70.7 20.9", ".3276 59.0 15.9"),
    "Pix2Pix": (".2329 69.6 19.2", ".2993 64.9 17.6"),
    "SeGAN": (".2545 76.7 23.6", ".2963 74.7 24.2"),
    "OVSR": (".1830 80.2 28.1", ".2258 80.4 29.8"),
    "PCNets": (".1959 83.1 29.1", ".2229 79.5 30.1"),
    "Human de-occlusion": (".1500 84.6 43.7", ".2138 83.6 41.4"),
}
#: Table 3: l1, FID; synthesized, then real.
_TABLE_3 = {
    "Pix2Pix": (".1126 19.66", ".0977 44.57"),
    "DeepFill v2": (".1127 21.61", ".0978 34.39"),
    "SeGAN": (".1122 23.01", ".0980 37.68"),
    "OVSR": (".0940 27.15", ".0859 51.26"),
    "PCNets": (".0936 18.50", ".0853 36.02"),
    "Human de-occlusion": (".0519 13.85", ".0562 21.52"),
}
#: Table 4: IoU modal, amodal, invisible of the ablations, synthesized.
_TABLE_4 = {
    "base": "77.5 84.0 30.3",
    "+ discriminator": "77.5 84.3 30.0",
    "+ modal": "81.7 83.1 34.6",
    "+ parsing": "84.0 83.9 40.0",
    "templates in place of parsing": "82.4 83.3 38.5",
    "all": "84.7 84.6 43.7",
}
#: Table 5: FID by background weight w. Table 6: FID by attention. As printed, synthesized (as Table 4, §5.3).
TABLE_5 = {"0": "18.04", ".1": "18.19", ".3": "17.85", ".5": "18.74", ".7": "18.61", ".9": "19.11", "1": "19.71"}
_ROUGHLY = "about "  # the text gives the gain alone
TABLE_6 = {
    "none": "19.66", "w = .3": "17.85", "Attention.B": "16.76", "Attention.T": "17.37", "cascaded": f"{_ROUGHLY}14.6",
    "fused": "13.85",
}  # fmt: skip
_LATER = (
    ("MaskComp", "10,000 humans re-split from train", "ICML 2024", {"FID": "16.9"}, "FID on the object area"),
    (
        "SDHDO", "AHP test (56)", "ACM MM 2025",
        {"LPIPS": ".0642", "SSIM": ".956", "KID": ".00605", "PSNR": "24.45"}, "its own",
    ),
    (
        "PHAC", "AHP test (56)", "CVPR 2026",
        {"LPIPS": ".0388", "SSIM": ".970", "KID": ".00125", "PSNR": "26.93"}, "its own, with an extra pose prompt",
    ),
)  # fmt: skip


def figure(printed: str, scale: float = 1.0) -> str:
    """The number in a figure as printed, over a metric's ``scale`` (a power of ten): ``84.0`` per cent is ``0.840``."""
    bare = printed.removeprefix(_ROUGHLY)
    return bare if scale == 1 else str(Decimal(bare).scaleb(-round(math.log10(scale))))


def _rows(board: str, table: Mapping[str, tuple[str, ...]], names: tuple[str, ...], source: str) -> list[Reported]:
    return [
        Reported(board, method, data, source, dict(zip(names, cells[k].split(), strict=True)))
        for k, data in enumerate(_SETS)
        for method, cells in table.items()
        if k < len(cells)
    ]


def reported(board: str) -> list[Reported]:
    """Every reported row of the ``mask`` or the ``content`` board."""
    if board == "mask":
        ablations = {f"ablation: {k}": (v,) for k, v in _TABLE_4.items()}
        return [
            *_rows("mask", _TABLE_2, ("l1", "IoU amodal", "IoU invisible"), f"{_PAPER}, table 2"),
            *_rows("mask", ablations, ("IoU modal", "IoU amodal", "IoU invisible"), f"{_PAPER}, table 4"),
        ]
    paper = _rows("content", _TABLE_3, ("l1", "FID"), f"{_PAPER}, table 3")
    return [*paper, *(Reported("content", m, d, s, f, p) for m, d, s, f, p in _LATER)]
