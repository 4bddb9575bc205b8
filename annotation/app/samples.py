"""A candidate in FiftyOne's dataset: its fields, the saved views, and the making of samples in bulk.

Nothing here imports fiftyone; `annotation.app.server` passes the module as an argument.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from ahp_toolkit.core.records import ImageRef, Segmented
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.storage import files
from annotation.app.units import crop_of, relative

PARSING_LONGEST = 640  # px; label maps are thinned to this for the App's own viewer
FLAGS = ("crowd", "group", "depiction", "reflection", "inside", "occluded", "truncated", "difficult")


def recount(dataset: Any) -> None:
    """Have MongoDB count the samples where its quick count is off, as after it was killed.

    FiftyOne goes by that count, and shows "No samples yet" in place of the panel.
    """
    found = dataset._sample_collection
    if found.estimated_document_count() != found.count_documents({}):
        found.database.command("validate", found.name)


class Counts:
    """Called now and then, has the samples counted again whenever the database was started again.

    The driver waits for a database that is away, so a killed one need not be seen as an error by anybody.
    """

    def __init__(self, dataset_of: Callable[[], Any]) -> None:
        self._dataset_of, self._process = dataset_of, ""

    def __call__(self) -> None:
        """Raises the driver's errors where the database is away."""
        dataset = self._dataset_of()
        hello = dataset._sample_collection.database.command("hello")
        process = str(hello.get("topologyVersion", {}).get("processId", "one"))  # its own for each start of a mongod
        if process != self._process:
            recount(dataset)
            self._process = process


def shape(fo: Any, dataset: Any) -> None:
    """Declare the fields and indexes that a dataset lacks."""
    if dataset.media_type != "image":
        dataset.media_type = "image"
    text, number, yes = fo.StringField, fo.FloatField, fo.BooleanField
    fields = dict.fromkeys(
        ("candidate_id", "image_id", "source", "segmenter", "parser", "verdict", "reason", "pushed"), text
    )
    fields |= dict.fromkeys(("score", "triage_score", "box_cover", "mask_contact", "aspect_ratio"), number)
    fields |= dict.fromkeys(("neighbours", "border_touch", "mask_area"), fo.IntField)
    fields |= dict.fromkeys(("provisional", "decided", "disagreed", "near_crowd"), yes)
    kinds: dict[str, dict[str, Any]] = {name: {"ftype": kind} for name, kind in fields.items()}
    kinds |= {n: {"ftype": fo.ListField, "subfield": text} for n in ("flags", "reviewers")}
    for name, kind in (("human", fo.Detection), ("parsing", fo.Segmentation)):
        kinds[name] = {"ftype": fo.EmbeddedDocumentField, "embedded_doc_type": kind}
    have = dataset.get_field_schema()
    for name, kind in kinds.items():
        if name not in have:  # all of them, unless an earlier start was killed in between
            dataset.add_sample_field(name, **kind)
    dataset.create_index("candidate_id", unique=True)
    for name in ("source", "image_id", "verdict", "triage_score", "decided", "disagreed", "provisional"):
        dataset.create_index(name)


def editor(dataset: Any) -> None:
    """Let the App's own brush edit `human`; the dataset must hold a sample."""
    if "human" not in (dataset.active_label_schemas or []):
        dataset.set_label_schemas(dataset.generate_label_schemas(fields=["human"]))
        dataset.activate_label_schemas(["human"])


class Documents:
    """Makes a candidate's sample as the document MongoDB keeps.

    FiftyOne's own way (`fo.Sample`, `add_samples`) spends three quarters of its time on wrapping documents in objects.
    One sample is made that way, with all that FiftyOne adds; in the others only the values differ.
    """

    def __init__(self, fo: Any, dataset: Any, state: Decisions, roots: Mapping[str, str]) -> None:
        self._array = fo.core.fields.ArrayField().to_mongo
        self._state, self._roots = state, roots
        now = datetime.now(UTC)
        one = np.ones((1, 1), np.uint8)
        sample = fo.Sample(
            filepath="/x.jpg",
            metadata=fo.ImageMetadata(width=1, height=1),
            human=fo.Detection(label="person", bounding_box=[0, 0, 1, 1], mask=one, confidence=1.0),
            parsing=fo.Segmentation(mask=one),
        )
        self._like = dataset._make_dict(sample, created_at=now, last_modified_at=now)

    def of(self, s: Segmented) -> dict[str, Any]:
        """The document of one candidate."""
        like = self._like
        d = {k: v for k, v in like.items() if k != "parsing"}  # what is shared below this level is never changed
        d |= {k: v for k, v in self._values(s).items() if v is not None}
        d |= {"filepath": _filepath(self._roots, s.candidate.image), "_rand": random.random()}
        d["metadata"] = like["metadata"] | {"width": s.mask.width, "height": s.mask.height}
        shown = self._state.case(s.candidate.candidate_id).current_mask(s.mask)
        d["pushed"] = shown.digest  # see `editor`
        d["human"] = like["human"] | {
            "_id": ObjectId(),
            "bounding_box": relative(shown),
            "mask": self._array(crop_of(shown)),
            "confidence": s.score,
        }
        labels = _thin(s)
        if labels is not None:
            d["parsing"] = like["parsing"] | {"_id": ObjectId(), "mask": self._array(labels)}
        return d

    def _values(self, s: Segmented) -> dict[str, Any]:
        c, near, box = s.candidate, s.candidate.neighbours, s.mask.box
        cid = c.candidate_id
        verdicts = self._state.row(cid)
        return {k: v for k, v in verdicts.items() if not k.startswith("verdict_")} | {
            "candidate_id": cid,
            "image_id": c.image.image_id,
            "source": c.image.source,
            "flags": [f for f in FLAGS if getattr(c.flags, f)],
            "neighbours": near.count,
            "box_cover": near.box_cover,
            "mask_contact": near.mask_contact,
            "near_crowd": near.crowd,
            "score": s.score,
            "triage_score": self._state.candidates.scores.get(cid),
            "segmenter": s.segmenter,
            "parser": s.parser or None,
            "border_touch": s.border_touch,
            "mask_area": s.mask.area,
            "aspect_ratio": box.height / box.width if box.width else None,
        }


def _filepath(roots: Mapping[str, str], image: ImageRef) -> str:
    try:
        return str(files.safe_join(Path(roots[image.source]), image.path))
    except (KeyError, ValueError):  # no root, or a path that leaves it: the sample shows no picture
        return f"{image.source}/unreadable"


def _thin(s: Segmented) -> NDArray[np.uint8] | None:
    if s.parsing is None:
        return None
    step = -(-max(s.parsing.height, s.parsing.width) // PARSING_LONGEST)
    return s.parsing.decode()[step // 2 :: step, step // 2 :: step]


def views(fo: Any, dataset: Any) -> None:
    """Save the views that a dataset lacks."""
    field = fo.ViewField
    wanted = {
        "to do": ~field("decided"),
        "discard": field("verdict") == "discard",
        "preserve": field("verdict") == "preserve",
        "refine": field("verdict") == "refine",
        "disagreed": field("disagreed") == True,  # noqa: E712  an expression, not a test
        "provisional": field("provisional") == True,  # noqa: E712
    }
    for name, expression in wanted.items():
        save_view(dataset, name, dataset.match(expression))


def save_view(dataset: Any, name: str, view: Any) -> None:
    """Save a view under a name that is not taken."""
    if not dataset.has_saved_view(name):
        dataset.save_view(name, view)
