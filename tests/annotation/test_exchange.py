"""Decisions and masks to other tools and back: exact round trips, and every bad row named and counted."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import REASONS, VERDICTS, Decision
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.decisions import log, proposals
from ahp_toolkit.decisions.log import logs_of, read_decisions
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.storage import files, images, parquet
from annotation.exchange import decisions as exchange
from annotation.exchange import masks
from tests.annotation.small import H, W, person, rectangle, say, write

PEOPLE = [person(i, k) for i in range(3) for k in range(2)]
IDS = [p.candidate.candidate_id for p in PEOPLE]
FIRST = {p.candidate.candidate_id: p.mask.digest for p in PEOPLE}
NEW = encode(rectangle(9, 13, 21, 40))


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "build", PEOPLE)


def test_what_a_killed_export_left_goes_with_the_next(root, tmp_path):
    csv_, coco, pngs = tmp_path / "d.csv", tmp_path / "m.json", tmp_path / "masks"
    name = f"{file_stem(IDS[0])}.png"
    pngs.mkdir()
    left = [tmp_path / ".d.csv.01234567.tmp", tmp_path / ".m.json.01234567.tmp", pngs / f".{name}.01234567.tmp"]
    other = tmp_path / ".e.csv.01234567.tmp"
    for path in (*left, other):
        path.write_bytes(b"half")
    exchange.export_decisions(root, csv_)
    masks.export_coco(root, coco)
    masks.export_pngs(root, pngs)
    assert not any(p.exists() for p in left) and other.exists()


def test_a_damaged_proposal_is_named_with_the_way_out(root):
    masks.import_masks(root, _one_mask(root), "ann")
    (part,) = (root / "refine").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UserError, match="part-00000.parquet: .*once this file is deleted"):
        list(masks.chosen(root))


def _one_mask(root):
    path = root.parent / "one.json"
    masks.export_coco(root, path)
    file = json.loads(path.read_text())
    note = next(a for a in file["annotations"] if a["candidate_id"] == IDS[0])
    note["segmentation"]["counts"] = NEW.counts.decode()
    path.write_text(json.dumps(file | {"annotations": [note]}))
    return path


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def counted(root):
    return Decisions(root).refresh().counted()


def one_decision(cid, verdict, who, reason, carried, seconds, note, provisional):
    """With ``carried`` the decision is on a mask that it carries, else on the build's."""
    mask = NEW if carried else None
    digest = NEW.digest if carried and verdict != "refine" else FIRST[cid]
    at = "2026-01-01T00:00:00.000+00:00"
    return Decision(cid, verdict, who, digest, reason, mask, seconds, at, note, provisional)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(
        st.builds(
            one_decision, st.sampled_from(IDS), st.sampled_from(VERDICTS), st.sampled_from(["ann", "bob"]),
            st.sampled_from(("", *REASONS)), st.booleans(), st.floats(0, 1e6), TEXT, st.booleans(),
        ),
        max_size=8, unique_by=lambda d: (d.candidate_id, d.reviewer, d.mask_digest),
    ),
    st.sampled_from(["csv", "parquet"]),
)  # fmt: skip
def test_what_goes_out_comes_back_exactly(tmp_path_factory, made, suffix):
    base = tmp_path_factory.mktemp("x")
    one, two = write(base / "one", PEOPLE), write(base / "two", PEOPLE)
    for d in made:
        log.append(log.path_of(one, d.reviewer), d, sync=False)
    path = base / f"d.{suffix}"
    n = exchange.export_decisions(one, path, history=True)
    done = exchange.import_decisions(two, path)
    assert (done.taken, done.known, done.bad) == (n, 0, [])
    assert read_decisions(logs_of(one)) == read_decisions(logs_of(two)) and counted(one) == counted(two)
    again = exchange.import_decisions(two, path)
    assert (again.taken, again.known) == (0, n)


def test_history_goes_out_whole(root, tmp_path):
    say(root, "ann", IDS[0], "discard")
    say(root, "ann", IDS[0], "preserve")
    assert exchange.export_decisions(root, tmp_path / "a.csv") == 1
    assert exchange.export_decisions(root, tmp_path / "b.csv", history=True) == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_history_comes_back_as_it_was(root, tmp_path, suffix):
    for day, verdict in enumerate(("discard", "preserve", "refine", "preserve"), 1):
        say(root, "ann", IDS[0], verdict, at=f"2026-01-0{day}T00:00:00.000+00:00")
    path = tmp_path / f"h.{suffix}"
    exchange.export_decisions(root, path, history=True)
    log = (root / "decisions" / "ann.jsonl").read_bytes()
    done = exchange.import_decisions(root, path)
    assert (done.taken, done.known, done.bad) == (0, 4, [])
    assert (root / "decisions" / "ann.jsonl").read_bytes() == log
    other = write(tmp_path / "other", PEOPLE)
    assert exchange.import_decisions(other, path).summary == "4 taken, 0 known already, 0 bad"
    assert read_decisions(logs_of(other)) == read_decisions(logs_of(root))
    assert exchange.import_decisions(other, path, "bob").summary == "4 taken, 0 known already, 0 bad"  # one person's


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_without_a_mask_digest_are_refused_in_one_line(root, tmp_path, suffix):
    say(root, "ann", IDS[0], "preserve")
    path = tmp_path / f"d.{suffix}"
    exchange.export_decisions(root, path)
    if suffix == "csv":
        text = path.read_text()
        path.write_text(text.replace("mask_digest", "other"))
    else:
        pq.write_table(parquet.read_table(path).drop(["mask_digest"]), path)
    with pytest.raises(UserError, match=r"expected a column mask_digest, got .*; ahp review export writes it"):
        exchange.import_decisions(root, path)
    path = tmp_path / "e.csv"
    path.write_text(f"candidate_id,verdict,mask_digest\n{IDS[0]},preserve,\n{IDS[0]},preserve,mine\n")
    done = exchange.import_decisions(root, path, "ann")
    assert [b.why.split(":")[0] for b in done.bad] == ["mask_digest is empty", "Decision.mask_digest"]


def test_what_contradicts_itself_without_an_order_is_bad(root, tmp_path):
    path, one, two = tmp_path / "d.csv", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"

    def taken(*rows, reviewer=""):
        head = ["candidate_id", "verdict", "reviewer", "at", "mask_digest"]
        path.write_text("\n".join(",".join(r) for r in (head, *((*r, FIRST[r[0]]) for r in rows))))
        done = exchange.import_decisions(root, path, reviewer)
        assert all("otherwise at line" in b.why for b in done.bad)
        return done.taken, done.known, len(done.bad)

    a, b, c, d = IDS[:4]
    assert taken((a, "discard", "ann", ""), (a, "preserve", "ann", "")) == (1, 0, 1)
    assert taken((a, "discard", "ann", ""), (a, "preserve", "ann", "")) == (0, 1, 1)
    assert taken((b, "discard", "ann", one), (b, "preserve", "ann", one)) == (1, 0, 1)
    assert taken((c, "discard", "ann", one), (c, "preserve", "bob", two), reviewer="cho") == (1, 0, 1)
    assert taken((d, "discard", "ann", one), (d, "preserve", "ann", two)) == (2, 0, 0)
    assert {cid: ds[0].verdict for cid, ds in counted(root).items()} == {
        a: "discard", b: "discard", c: "discard", d: "preserve",
    }  # fmt: skip


def test_an_old_decision_from_elsewhere_does_not_replace_a_newer_one(root, tmp_path):
    say(root, "ann", IDS[0], "preserve", at="2026-01-02T00:00:00+00:00")
    path = tmp_path / "d.csv"
    row = f"{IDS[0]},discard,ann,2026-01-02T01:00:00+02:00,{FIRST[IDS[0]]}"
    path.write_text(f"candidate_id,verdict,reviewer,at,mask_digest\n{row}\n")
    assert exchange.import_decisions(root, path).taken == 1  # it is history
    assert counted(root)[IDS[0]][0].verdict == "preserve"


@pytest.mark.parametrize("column", ["id", ""])
def test_a_decision_that_was_taken_back_does_not_return_with_an_older_export(root, tmp_path, column):
    old = say(root, "ann", IDS[0], "preserve", at="2026-01-01T00:00:00.000+00:00")
    path = tmp_path / "d.csv"
    exchange.export_decisions(root, path)
    if not column:  # a tool that lost the ids
        path.write_text(path.read_text().replace("provisional,id", "provisional,other").replace(old.id, ""))
    log.append(log.path_of(root, "ann"), log.Retraction(IDS[0], "ann", old.id, log.now()))
    assert exchange.import_decisions(root, path).summary == "0 taken, 1 known already, 0 bad"
    assert counted(root) == {}


def test_times_come_in_as_utc_and_those_of_no_clock_are_bad(root, tmp_path):
    path = tmp_path / "d.csv"
    times = ["2026-01-01T10:30:00+02:00", "2026-01-01T08:30:00Z", "yesterday", "2026-01-01T08:30:00", "2026-01-01"]
    rows = [f"{cid},preserve,ann,{FIRST[cid]},{at}\n" for cid, at in zip(IDS, times, strict=False)]
    head = "candidate_id,verdict,reviewer,mask_digest,at\n"
    path.write_text(head + "".join(rows))
    done = exchange.import_decisions(root, path)
    assert (done.taken, [b.where for b in done.bad]) == (2, ["line 4", "line 5", "line 6"])
    assert all("expected ISO 8601 with a zone" in b.why for b in done.bad)
    assert {d.at for d in read_decisions(logs_of(root))} == {"2026-01-01T08:30:00.000+00:00"}
    path.write_text(head + rows[0] + rows[1].replace("Z", "+00:00"))
    assert exchange.import_decisions(root, path).summary == "0 taken, 2 known already, 0 bad"


@pytest.mark.parametrize("bom", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("image_id", [7, 7.0, "7", "photo"])
@pytest.mark.parametrize("shape", ["rle", "counts", "polygons", "flat"])
def test_one_quirk_has_one_answer_in_imports_too(root, tmp_path, bom, image_id, shape):
    """Float and text ids, a byte order mark, and each form of a segmentation: what `core.values` reads."""
    path, polygon = tmp_path / "m.json", [9, 13, 21, 13, 21, 40, 9, 40]
    shapes = {
        "rle": NEW.rle_json, "counts": {"size": [H, W], "counts": NEW.runs().tolist()},
        "polygons": [polygon], "flat": polygon,
    }  # fmt: skip
    image = {"id": image_id, "file_name": PEOPLE[0].candidate.image.path, "width": float(W), "height": str(H)}
    category, note = {"id": 1.0, "name": "person"}, {"category_id": "1", "candidate_id": IDS[0]}
    note |= {"image_id": 7 if image_id != "photo" else "photo", "segmentation": shapes[shape], "iscrowd": None}
    file = {"images": [image], "annotations": [note], "categories": [category], "licenses": None}
    path.write_bytes(bom + json.dumps(file).encode())
    assert masks.import_masks(root, path, "ann", "preserve").summary == "1 taken, 0 known already, 0 bad"
    assert counted(root)[IDS[0]][0].corrected == NEW


def test_an_annotation_without_a_segmentation_is_bad(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    file = files.read_json(path)
    for note, shape in zip(file["annotations"], ([[]], [], None, "x"), strict=False):
        note["segmentation"] = shape
    files.write_json(path, file)
    why = [b.why for b in masks.import_masks(root, path, "ann").bad]
    assert len(why) == 4 and all("segmentation" in w or "polygon" in w for w in why)


def test_an_unnamed_annotation_of_another_category_is_refused(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    file = files.read_json(path)
    polygon = [[9, 13, 21, 13, 21, 40, 9, 40]]
    note = {"image_id": file["annotations"][0]["image_id"], "segmentation": polygon}
    file["categories"] = [{"id": 18, "name": "dog"}, {"id": 3, "name": "Person"}]
    file["annotations"] = [note | {"category_id": 18}, note | {"category_id": 99}, note | {"category_id": 3}]
    files.write_json(path, file)
    done = masks.import_masks(root, path, "ann", "preserve")
    assert (done.taken, [b.where for b in done.bad]) == (1, ["annotation 1", "annotation 2"])
    assert "its category is no person: 'dog'" in done.bad[0].why
    named = note | {"category_id": 18, "candidate_id": IDS[1]}  # who names a candidate knows whose it is
    files.write_json(path, file | {"annotations": [named]})
    assert masks.import_masks(root, path, "bob").taken == 1


def test_every_bad_row_is_named_and_the_good_ones_are_taken(root, tmp_path):
    path = tmp_path / "d.csv"
    small = encode(np.ones((4, 4), bool))
    wrong_frame = json.dumps(small.rle_json)
    a, b = FIRST[IDS[0]], FIRST[IDS[1]]
    rows = [
        ["candidate_id", "verdict", "mask_digest", "reason", "seconds", "corrected"],
        [IDS[0], "preserve", a, "", "1.5", ""],
        ["coco/999#9", "discard", a, "", "", ""],
        [IDS[1], "maybe", b, "", "", ""],
        [IDS[1], "discard", b, "ugly", "", ""],
        [IDS[1], "discard", b, "", "nan", ""],
        [IDS[1], "discard", b, "", "quick", ""],
        ["", "discard", b, "", "", ""],
        [IDS[1], "preserve", small.digest, "", "", wrong_frame],
        [IDS[1], "preserve", b, "", "", '{"size": [4, 4]}'],
        [IDS[1], "preserve", b, "", "", "{"],
        [IDS[1], "preserve", b, "", "", "", "more"],
        [IDS[0], "discard", a, "", "", ""],
        [IDS[1], "preserve", NEW.digest, "", "", ""],
        [IDS[2], "discard", "0" * 16, "occluded", "", ""],
    ]
    with path.open("w", newline="") as f:
        csv.writer(f).writerows(rows)
    done = exchange.import_decisions(root, path, "ann")
    assert (done.taken, done.known) == (2, 0)
    assert [b.where for b in done.bad] == [f"line {i}" for i in range(3, 15)]
    reasons = ["no such candidate", "verdict", "reason", "finite", "a number", "empty", "frame", "RLE"]
    reasons += ["Expecting", "more cells", "otherwise at line 2", "a mask that is not here"]
    for bad, why in zip(done.bad, reasons, strict=True):
        assert why in bad.why
    found = counted(root)
    assert {c: (ds[0].reviewer, ds[0].verdict, ds[0].reason) for c, ds in found.items()} == {
        IDS[0]: ("ann", "preserve", ""), IDS[2]: ("ann", "discard", "occluded"),
    }  # fmt: skip
    assert all(ds[0].at for ds in found.values()) and found[IDS[0]][0].seconds == 1.5


def test_files_that_cannot_be_read_at_all(root, tmp_path):
    bad = tmp_path / "d.csv"
    with pytest.raises(UserError, match="cannot be read"):
        exchange.import_decisions(root, bad)
    bad.write_text("id,verdict\n")
    with pytest.raises(UserError, match="expected a column candidate_id, got id, verdict"):
        exchange.import_decisions(root, bad)
    with pytest.raises(UserError, match="ends in .csv or .parquet"):
        exchange.export_decisions(root, tmp_path / "d.xls")
    bad.write_text("candidate_id,verdict,mask_digest\n")
    with pytest.raises(UserError, match="letter"):
        exchange.import_decisions(root, bad, "../ann")
    bad.write_text(f"candidate_id,verdict,mask_digest\n{IDS[0]},discard,{'0' * 16}\n")
    assert "no reviewer" in exchange.import_decisions(root, bad).bad[0].why


@pytest.mark.parametrize("kind", ["coco", "png"])
def test_masks_come_back_exactly_and_unchanged_ones_are_known(root, tmp_path, kind):
    say(root, "ann", IDS[1], "refine")
    preserved = say(root, "ann", IDS[2], "preserve", corrected=NEW)
    export = masks.export_coco if kind == "coco" else masks.export_pngs
    path = tmp_path / ("m.json" if kind == "coco" else "m")
    assert export(root, path) == len(PEOPLE)
    done = masks.import_masks(root, path, "bob")
    assert (done.taken, done.known, done.bad) == (0, len(PEOPLE), [])
    assert Decisions(root).refresh().reopened == set()
    log.append(log.path_of(root, "ann"), log.Retraction(IDS[2], "ann", preserved.id))
    done = masks.import_masks(root, path, "bob")
    assert (done.taken, done.known, done.bad) == (1, len(PEOPLE) - 1, [])
    ((new,),) = proposals.read_all(root / "refine").values()
    assert (new.candidate_id, new.segmented.mask, new.segmented.segmenter) == (IDS[2], NEW, "bob@corrected")
    assert export(root, tmp_path / ("r.json" if kind == "coco" else "r"), ["refine"]) == 1


def test_the_preserved_mask_of_an_export_is_no_proposal(root, tmp_path):
    """It goes out with the mask that was decided on, while a newer one waits."""
    say(root, "ann", IDS[0], "preserve")
    masks.import_masks(root, _one_mask(root), "bob")
    masks.export_coco(root, tmp_path / "m.json")
    assert masks.import_masks(root, tmp_path / "m.json", "cho").summary == "0 taken, 6 known already, 0 bad"


def test_a_corrected_coco_file_makes_proposals_or_decisions(root, tmp_path):
    say(root, "ann", IDS[0], "refine")
    path = tmp_path / "m.json"
    masks.export_coco(root, path, ["refine"])
    file = files.read_json(path)
    file["annotations"][0]["segmentation"] = [[9, 13, 21, 13, 21, 40, 9, 40]]  # CVAT: a polygon, no name of ours
    del file["annotations"][0]["candidate_id"], file["annotations"][0]["attributes"]
    files.write_json(path, file)
    assert masks.import_masks(root, path, "cho").taken == 1
    assert Decisions(root).refresh().reopened == {IDS[0]}
    done = masks.import_masks(root, path, "cho", "preserve")
    assert done.taken == 1 and counted(root)[IDS[0]][-1].corrected == NEW
    assert Decisions(root).refresh().reopened == set()


def test_every_bad_mask_is_named(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    file = files.read_json(path)
    a = file["annotations"]
    a[0]["candidate_id"] = "coco/9#9"
    a[1]["segmentation"]["counts"] = "zz"
    a[2]["image_id"] = 99
    a[3]["candidate_id"] = a[4]["candidate_id"]
    a[5]["segmentation"] = {"size": [H, W], "counts": encode(np.zeros((H, W), bool)).counts.decode()}
    files.write_json(path, file)
    done = masks.import_masks(root, path, "ann")
    assert [b.where for b in done.bad] == [f"annotation {i}" for i in (1, 2, 3, 5, 6)]
    folder = tmp_path / "pngs"
    images.write_png(folder / "stranger.png", np.zeros((H, W), np.uint8))
    images.write_png(folder / f"{file_stem(IDS[0])}.png", np.full((5, 5), 255, np.uint8))
    (folder / f"{file_stem(IDS[1])}.png").write_bytes(b"no picture")
    done = masks.import_masks(root, folder, "ann")
    assert (done.taken, len(done.bad)) == (0, 3)
    with pytest.raises(UserError, match="there is none"):
        masks.import_masks(root, tmp_path / "x.json", "ann")


def test_two_alike_in_one_place_are_not_guessed_at(tmp_path):
    twins = [PEOPLE[0], replace(PEOPLE[0], candidate=replace(PEOPLE[0].candidate, candidate_id="coco/000000#7"))]
    root = write(tmp_path, twins)
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    file = files.read_json(path)
    for note in file["annotations"]:
        del note["candidate_id"], note["attributes"]
    files.write_json(path, file)
    assert len(masks.import_masks(root, path, "ann").bad) == 2
