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
from ahp_toolkit.decisions import log as decisions
from ahp_toolkit.decisions import merge, proposals
from ahp_toolkit.decisions.mask_history import digest
from ahp_toolkit.storage import files, images, parquet
from annotation.exchange import decisions as exchange
from annotation.exchange import masks
from tests.annotation.small import H, W, person, rectangle, say, write

PEOPLE = [person(i, k) for i in range(3) for k in range(2)]
IDS = [p.candidate.candidate_id for p in PEOPLE]
FIRST = {p.candidate.candidate_id: digest(p.mask) for p in PEOPLE}
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
        list(proposals.current(root))


def _one_mask(root):
    path = root.parent / "one.json"
    masks.export_coco(root, path)
    said = json.loads(path.read_text())
    note = next(a for a in said["annotations"] if a["candidate_id"] == IDS[0])
    note["segmentation"]["counts"] = NEW.counts.decode()
    path.write_text(json.dumps(said | {"annotations": [note]}))
    return path


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(
        st.builds(
            Decision, st.sampled_from(IDS), st.sampled_from(VERDICTS), st.sampled_from(["ann", "bob"]),
            st.sampled_from(("", *REASONS)), st.sampled_from([None, NEW]), st.floats(0, 1e6),
            st.just("2026-01-01T00:00:00.000+00:00"), TEXT, st.booleans(), st.sampled_from(["", "first"]),
        ),
        max_size=8,
    ),
    st.sampled_from(["csv", "parquet"]),
)  # fmt: skip
def test_what_goes_out_comes_back_exactly(tmp_path_factory, words, suffix):
    base = tmp_path_factory.mktemp("x")
    one, two = write(base / "one", PEOPLE), write(base / "two", PEOPLE)
    for d in [replace(d, shown=d.shown and FIRST[d.candidate_id]) for d in words]:
        decisions.append(one / "decisions" / f"{d.reviewer}.jsonl", d, sync=False)
    path = base / f"d.{suffix}"
    n = exchange.export_decisions(one, path)
    done = exchange.import_decisions(two, path)
    assert (done.taken, done.known, done.bad) == (n, 0, [])
    assert {c: sorted(w, key=lambda d: d.reviewer) for c, w in merge.words_of(one).items()} == {
        c: sorted(w, key=lambda d: d.reviewer) for c, w in merge.words_of(two).items()
    }
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
        say(root, "ann", IDS[0], verdict, at=f"2026-01-0{day}T00:00:00+00:00", shown=FIRST[IDS[0]])
    path = tmp_path / f"h.{suffix}"
    exchange.export_decisions(root, path, history=True)
    log = (root / "decisions" / "ann.jsonl").read_bytes()
    done = exchange.import_decisions(root, path)
    assert (done.taken, done.known, done.bad) == (0, 4, [])
    assert (root / "decisions" / "ann.jsonl").read_bytes() == log
    other = write(tmp_path / "other", PEOPLE)
    assert exchange.import_decisions(other, path).words == "4 taken, 0 known already, 0 bad"
    assert list(merge.read_logs(merge.logs_of(other))) == list(merge.read_logs(merge.logs_of(root)))
    assert exchange.import_decisions(other, path, "bob").words == "4 taken, 0 known already, 0 bad"  # one person's


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_history_comes_back_whatever_its_clocks_said(root, tmp_path, suffix):
    """A mended mask has the server's time, a word in the panel the browser's."""
    say(root, "ann", IDS[0], "refine", corrected=NEW, at="2026-01-01T00:02:00+00:00", note="mended")
    say(root, "ann", IDS[0], "discard", at="2026-01-01T00:00:30+00:00", reason="other")
    say(root, "ann", IDS[0], "preserve", at="2026-01-01T00:01:00+00:00")
    path = tmp_path / f"h.{suffix}"
    exchange.export_decisions(root, path, history=True)
    other, part = write(tmp_path / "other", PEOPLE), write(tmp_path / "part", PEOPLE)
    say(part, "ann", IDS[0], "refine", corrected=NEW, at="2026-01-01T00:02:00+00:00", note="mended")
    assert exchange.import_decisions(other, path).words == "3 taken, 0 known already, 0 bad"
    assert exchange.import_decisions(part, path).words == "2 taken, 1 known already, 0 bad"
    for copy in (other, part):
        assert list(merge.read_logs(merge.logs_of(copy))) == list(merge.read_logs(merge.logs_of(root)))
        assert exchange.import_decisions(copy, path).words == "0 taken, 3 known already, 0 bad"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_before_that_do_not_say_what_was_shown_are_read(root, tmp_path, suffix):
    say(root, "ann", IDS[0], "preserve", shown=FIRST[IDS[0]])
    path = tmp_path / f"d.{suffix}"
    exchange.export_decisions(root, path)
    if suffix == "csv":
        path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    else:
        pq.write_table(parquet.read_table(path).drop(["shown"]), path)
    assert exchange.import_decisions(root, path).words == "0 taken, 1 known already, 0 bad"
    assert exchange.import_decisions(write(tmp_path / "other", PEOPLE), path).taken == 1


def test_what_contradicts_itself_without_an_order_is_bad(root, tmp_path):
    path, one, two = tmp_path / "d.csv", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"

    def taken(*rows, reviewer=""):
        head = ["candidate_id", "verdict", "reviewer", "at"]
        path.write_text("\n".join(",".join(r) for r in (head, *rows)))
        done = exchange.import_decisions(root, path, reviewer)
        assert all("otherwise at line" in b.why for b in done.bad)
        return done.taken, done.known, len(done.bad)

    a, b, c, d = IDS[:4]
    assert taken((a, "discard", "ann", ""), (a, "preserve", "ann", "")) == (1, 0, 1)
    assert taken((a, "discard", "ann", ""), (a, "preserve", "ann", "")) == (0, 1, 1)
    assert taken((b, "discard", "ann", one), (b, "preserve", "ann", one)) == (1, 0, 1)
    assert taken((c, "discard", "ann", one), (c, "preserve", "bob", two), reviewer="cho") == (1, 0, 1)
    assert taken((d, "discard", "ann", one), (d, "preserve", "ann", two)) == (2, 0, 0)
    assert taken((d, "preserve", "ann", ""), (d, "preserve", "ann", "")) == (0, 2, 0)
    said = {cid: w[0].verdict for cid, w in merge.words_of(root).items()}
    assert said == {a: "discard", b: "discard", c: "discard", d: "preserve"}


def test_an_old_word_from_elsewhere_does_not_replace_a_newer_one(root, tmp_path):
    say(root, "ann", IDS[0], "preserve", at="2026-01-02T00:00:00+00:00")
    path = tmp_path / "d.csv"
    path.write_text(f"candidate_id,verdict,reviewer,at\n{IDS[0]},discard,ann,2026-01-02T01:00:00+02:00\n")
    done = exchange.import_decisions(root, path)
    assert done.taken == 0 and "has said preserve since" in done.bad[0].why
    assert merge.words_of(root)[IDS[0]][0].verdict == "preserve"


def test_a_word_that_was_taken_back_does_not_return_with_an_older_export(root, tmp_path):
    at = "2026-01-02T00:00:00+00:00"
    say(root, "ann", IDS[0], "preserve", at="2026-01-01T00:00:00+00:00")
    path = tmp_path / "d.csv"
    exchange.export_decisions(root, path)
    decisions.append(root / "decisions" / "ann.jsonl", decisions.Retraction(IDS[0], "ann", at))
    done = exchange.import_decisions(root, path)
    assert done.taken == 0 and f"ann has taken a word back since, at {at}" in done.bad[0].why
    path.write_text(f"candidate_id,verdict,reviewer,at\n{IDS[0]},discard,ann,2026-01-03T00:00:00Z\n")
    assert exchange.import_decisions(root, path).taken == 1


@pytest.mark.parametrize(
    ("at", "mask"), [("2020-01-01T00:00:00Z", "first"), ("2199-01-01T00:00:00Z", "new"), ("", "new")]
)
def test_a_row_is_of_a_proposal_that_it_came_after(root, tmp_path, at, mask):
    masks.import_masks(root, _one_mask(root), "ann")
    path = tmp_path / "d.csv"
    path.write_text(f"candidate_id,verdict,at\n{IDS[0]},preserve,{at}\n")
    assert exchange.import_decisions(root, path, "bob").taken == 1
    ((s, _),) = masks.chosen(root, ["preserve"])
    assert s.mask == {"first": PEOPLE[0].mask, "new": NEW}[mask]
    assert proposals.reopened(root) == ({IDS[0]} if mask == "first" else set())


def test_times_come_in_as_utc_and_those_of_no_clock_are_bad(root, tmp_path):
    path = tmp_path / "d.csv"
    times = ["2026-01-01T10:30:00+02:00", "2026-01-01T08:30:00Z", "yesterday", "2026-01-01T08:30:00", "2026-01-01"]
    rows = [f"{cid},preserve,ann,{at}\n" for cid, at in zip(IDS, times, strict=False)]
    path.write_text("candidate_id,verdict,reviewer,at\n" + "".join(rows))
    done = exchange.import_decisions(root, path)
    assert (done.taken, [b.where for b in done.bad]) == (2, ["line 4", "line 5", "line 6"])
    assert all("expected ISO 8601 with a zone" in b.why for b in done.bad)
    assert [d.at for d in merge.read_logs(merge.logs_of(root))] == ["2026-01-01T08:30:00.000+00:00", times[1]]
    path.write_text("candidate_id,verdict,reviewer,at\n" + rows[0] + rows[1].replace("Z", "+00:00"))
    assert exchange.import_decisions(root, path).words == "0 taken, 2 known already, 0 bad"


def test_an_unnamed_annotation_of_another_category_is_refused(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    said = files.read_json(path)
    polygon = [[9, 13, 21, 13, 21, 40, 9, 40]]
    note = {"image_id": said["annotations"][0]["image_id"], "segmentation": polygon}
    said["categories"] = [{"id": 18, "name": "dog"}, {"id": 3, "name": "Person"}]
    said["annotations"] = [note | {"category_id": 18}, note | {"category_id": 99}, note | {"category_id": 3}]
    files.write_json(path, said)
    done = masks.import_masks(root, path, "ann", "preserve")
    assert (done.taken, [b.where for b in done.bad]) == (1, ["annotation 1", "annotation 2"])
    assert "its category is no person: 'dog'" in done.bad[0].why
    named = note | {"category_id": 18, "candidate_id": IDS[1]}  # who names a candidate knows whose it is
    files.write_json(path, said | {"annotations": [named]})
    assert masks.import_masks(root, path, "bob").taken == 1


def test_every_bad_row_is_named_and_the_good_ones_are_taken(root, tmp_path):
    path = tmp_path / "d.csv"
    wrong_frame = json.dumps({"size": [4, 4], "counts": encode(np.ones((4, 4), bool)).counts.decode()})
    rows = [
        ["candidate_id", "verdict", "reason", "seconds", "corrected"],
        [IDS[0], "preserve", "", "1.5", ""],
        ["coco/999#9", "discard", "", "", ""],
        [IDS[1], "maybe", "", "", ""],
        [IDS[1], "discard", "ugly", "", ""],
        [IDS[1], "discard", "", "nan", ""],
        [IDS[1], "discard", "", "quick", ""],
        ["", "discard", "", "", ""],
        [IDS[1], "preserve", "", "", wrong_frame],
        [IDS[1], "preserve", "", "", '{"size": [4, 4]}'],
        [IDS[1], "preserve", "", "", "{"],
        [IDS[1], "preserve", "", "", "", "more"],
        [IDS[0], "discard", "", "", ""],
        [IDS[2], "discard", "occluded", "", ""],
    ]
    with path.open("w", newline="") as f:
        csv.writer(f).writerows(rows)
    done = exchange.import_decisions(root, path, "ann")
    assert (done.taken, done.known) == (2, 0)
    assert [b.where for b in done.bad] == [f"line {i}" for i in range(3, 14)]
    said = ["no such candidate", "verdict", "reason", "seconds", "could not convert", "empty", "frame", "lacks"]
    said += ["Expecting", "more cells", "otherwise at line 2"]
    for b, why in zip(done.bad, said, strict=True):
        assert why in b.why
    said = merge.words_of(root)
    assert {c: (w[0].reviewer, w[0].verdict, w[0].reason) for c, w in said.items()} == {
        IDS[0]: ("ann", "preserve", ""), IDS[2]: ("ann", "discard", "occluded"),
    }  # fmt: skip
    assert all(w[0].at for w in said.values()) and said[IDS[0]][0].seconds == 1.5


def test_files_that_cannot_be_read_at_all(root, tmp_path):
    bad = tmp_path / "d.csv"
    with pytest.raises(UserError, match="cannot be read"):
        exchange.import_decisions(root, bad)
    bad.write_text("id,verdict\n")
    with pytest.raises(UserError, match="expected a column candidate_id, got id, verdict"):
        exchange.import_decisions(root, bad)
    with pytest.raises(UserError, match="ends in .csv or .parquet"):
        exchange.export_decisions(root, tmp_path / "d.xls")
    bad.write_text("candidate_id,verdict\n")
    with pytest.raises(UserError, match="letter"):
        exchange.import_decisions(root, bad, "../ann")
    bad.write_text(f"candidate_id,verdict\n{IDS[0]},discard\n")
    assert "no reviewer" in exchange.import_decisions(root, bad).bad[0].why


@pytest.mark.parametrize("kind", ["coco", "png"])
def test_masks_come_back_exactly_and_unchanged_ones_are_known(root, tmp_path, kind):
    say(root, "ann", IDS[1], "refine")
    say(root, "ann", IDS[2], "preserve", corrected=NEW)
    export = masks.export_coco if kind == "coco" else masks.export_pngs
    path = tmp_path / ("m.json" if kind == "coco" else "m")
    assert export(root, path) == len(PEOPLE)
    done = masks.import_masks(root, path, "bob")
    assert (done.taken, done.known, done.bad) == (0, len(PEOPLE), [])
    assert proposals.reopened(root) == set()
    decisions.append(root / "decisions" / "ann.jsonl", decisions.Retraction(IDS[2], "ann"))
    done = masks.import_masks(root, path, "bob")
    assert (done.taken, done.known, done.bad) == (1, len(PEOPLE) - 1, [])
    (new,) = proposals.newest(root / "refine").values()
    assert (new.candidate_id, new.segmented.mask, new.segmented.segmenter) == (IDS[2], NEW, "bob@mended")
    assert export(root, tmp_path / ("r.json" if kind == "coco" else "r"), ["refine"]) == 1


def test_the_preserved_mask_of_an_export_is_no_proposal(root, tmp_path):
    """It goes out with the mask that was judged, while a newer one waits."""
    say(root, "ann", IDS[0], "preserve")
    masks.import_masks(root, _one_mask(root), "bob")
    masks.export_coco(root, tmp_path / "m.json")
    assert masks.import_masks(root, tmp_path / "m.json", "cho").words == "0 taken, 6 known already, 0 bad"


def test_a_mended_coco_file_makes_proposals_or_decisions(root, tmp_path):
    say(root, "ann", IDS[0], "refine")
    path = tmp_path / "m.json"
    masks.export_coco(root, path, ["refine"])
    said = files.read_json(path)
    said["annotations"][0]["segmentation"] = [[9, 13, 21, 13, 21, 40, 9, 40]]  # CVAT: a polygon, no name of ours
    del said["annotations"][0]["candidate_id"], said["annotations"][0]["attributes"]
    files.write_json(path, said)
    assert masks.import_masks(root, path, "cho").taken == 1
    assert proposals.reopened(root) == {IDS[0]}
    done = masks.import_masks(root, path, "cho", "preserve")
    assert done.taken == 1 and merge.words_of(root)[IDS[0]][-1].corrected == NEW
    assert proposals.reopened(root) == set()


def test_every_bad_mask_is_named(root, tmp_path):
    path = tmp_path / "m.json"
    masks.export_coco(root, path)
    said = files.read_json(path)
    a = said["annotations"]
    a[0]["candidate_id"] = "coco/9#9"
    a[1]["segmentation"]["counts"] = "zz"
    a[2]["image_id"] = 99
    a[3]["candidate_id"] = a[4]["candidate_id"]
    a[5]["segmentation"] = {"size": [H, W], "counts": encode(np.zeros((H, W), bool)).counts.decode()}
    files.write_json(path, said)
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
    said = files.read_json(path)
    for note in said["annotations"]:
        del note["candidate_id"], note["attributes"]
    files.write_json(path, said)
    assert len(masks.import_masks(root, path, "ann").bad) == 2
