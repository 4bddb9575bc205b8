"""Intersection over union of amodal, modal and invisible masks (spec §7)."""

from __future__ import annotations

from benchmark.features.counts import Areas, Counts
from benchmark.metric import GlobalIou, MaskExample, MeanIou


class _Amodal(MeanIou):
    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_ga, a.pa + a.ga - a.pa_ga


class _Modal(MeanIou):
    needs_modal = True

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pm_gm, a.pm + a.gm - a.pm_gm


class _OutsideTrueModal(MeanIou):
    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pa_gi, a.pa_hidden + a.gi - a.pa_gi


class IouAmodal(_Amodal):
    """Mean IoU of the amodal masks."""

    name = "iou_amodal"
    definition = (
        "Mean over samples of area(P AND G) / area(P OR G), P the predicted and G the true amodal mask, on the 256x256 "
        "crop; both empty: 1, one empty: 0."
    )
    examples = (
        # 1 of 3 px, both empty, one empty
        MaskExample(
            ["##./...", ".../...", "#../..."],
            [".##/...", ".../...", ".../..."],
            [".#./...", ".../...", ".../..."],
            4 / 9,
        ),
        MaskExample(["##/##"], ["##/##"], ["#./#."], 1.0),
    )


class IouAmodalGlobal(_Amodal, GlobalIou):
    """Global IoU of the amodal masks."""

    name = "iou_amodal_global"
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true amodal masks, "
        "on the 256x256 crop."
    )
    # (1 + 1) of (3 + 1) px
    examples = (MaskExample(["##./...", "#../..."], [".##/...", "#../..."], [".#./...", "#../..."], 0.5),)


class IouModal(_Modal):
    """Mean IoU of the modal masks."""

    name = "iou_modal"
    definition = (
        "Mean over samples of area(P AND G) / area(P OR G), P the predicted and G the true modal mask, on the 256x256 "
        "crop; both empty: 1, one empty: 0. Only for methods that predict a modal mask; a sample without one scores as "
        "empty."
    )
    # 1 of 2 px; the amodal masks do not matter
    examples = (MaskExample([".../..."], ["###/###"], ["##./..."], 0.5, modal=[".#./..."]),)


class IouModalGlobal(_Modal, GlobalIou):
    """Global IoU of the modal masks."""

    name = "iou_modal_global"
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true modal masks, on "
        "the 256x256 crop. Only for methods that predict a modal mask; a sample without one scores as empty."
    )
    # (1 + 2) of (2 + 2) px
    examples = (MaskExample(["../..", "../.."], ["##/##", "##/##"], ["##/..", "##/.."], 0.75, [".#/..", "##/.."]),)


class IouInvisible(MeanIou):
    """Mean IoU of the invisible masks, the strictest rule."""

    name = "iou_invisible"
    subtracts_modal = True
    definition = (
        "Mean over samples of the IoU of the invisible masks: predicted amodal minus predicted modal (of a method "
        "without a modal mask, marked †: minus the initial mask it was given, so that even true amodal masks do not "
        "reach 100 %) against true amodal minus true modal; both empty: 1, one empty: 0. The strictest rule in use."
    )
    examples = (
        # P = columns 2 to 3 of row 1, G = columns 3 to 4: 1 of 3 px
        MaskExample(["###./...."], ["####/...."], ["##../...."], 1 / 3, modal=["#.../...."]),
        # without a modal mask the initial mask is subtracted: here the true one
        MaskExample(["###./...."], ["####/...."], ["##../...."], 0.5),
    )

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """Intersection and union in px."""
        return a.pi_gi, a.pi + a.gi - a.pi_gi


class IouInvisibleGtvis(_OutsideTrueModal):
    """Mean IoU of the invisible masks by the rule of C2F-Seg."""

    name = "iou_invisible_gtvis"
    definition = (
        "Mean over samples of the IoU of the invisible masks, the true modal mask subtracted from the prediction as "
        "well as from the truth (the rule of C2F-Seg); both empty: 1, one empty: 0."
    )
    # the predicted modal mask does not matter: 1 of 2 px
    examples = (MaskExample(["###./...."], ["####/...."], ["##../...."], 0.5, modal=["#.../...."]),)


class IouInvisibleGlobal(_OutsideTrueModal, GlobalIou):
    """Global IoU outside the true modal masks, the rule of SDAmodal."""

    name = "iou_invisible_global"
    definition = (
        "Sum over samples of intersections divided by the sum of unions, of the predicted and the true amodal masks "
        "outside the true modal mask (the rule of SDAmodal)."
    )
    # (1 + 0) of (2 + 1) px
    examples = (MaskExample(["###./....", "..../#..."], ["####/....", "##../...."], ["##../....", "##../...."], 1 / 3),)


METRICS = (
    IouAmodal, IouAmodalGlobal, IouModal, IouModalGlobal, IouInvisible, IouInvisibleGtvis, IouInvisibleGlobal,
)  # fmt: skip
