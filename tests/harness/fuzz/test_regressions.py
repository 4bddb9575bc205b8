"""Inputs that once crashed, hung, took gigabytes or said several lines, each as small as it goes."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision, Dropped
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.decisions import log as decisions
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import Loaded
from ahp_toolkit.sources.reading import chunks, mat, openimages_csv, voc_files
from ahp_toolkit.sources.reading.openimages_index import flickr_number
from ahp_toolkit.sources.reading.shared import MAX_INSTANCES
from ahp_toolkit.storage import images
from ahp_toolkit.storage.parquet import to_table
from annotation.exchange import decisions as exchange
from annotation.exchange import masks as exchange_masks
from benchmark.grading.records import parse
from benchmark.grading.submission import Submission, validate
from tests import source_scenes as world
from tests.harness.fuzz import mutate
from tests.harness.fuzz.targets_sources import ENRICH


def dataset(name: str, root: Path, count: int = 1) -> Any:
    """A source's module, with a small dataset of it at ``root``."""
    module = SOURCES.get(name)
    root.mkdir(exist_ok=True)
    world.write_scenes(name, root, [s.__class__(s.image, s.pixels, "train") for s in world.scenes(name, module, count)])
    ENRICH.get(name, lambda _: None)(root)
    return module


def everything(module: Any, root: Path) -> list[Loaded]:
    return [module.load(root, e) for e in module.scan(root)]


def reasons(found: list[Loaded]) -> set[str]:
    return {d.reason for x in found for d in x.dropped}


# --- what all share -------------------------------------------------------------------------------------------------


def test_an_error_and_a_dropped_record_are_one_line_that_can_be_written() -> None:
    text = str(UserError("no file a\nb\r\x1b[2J\ud800" + "x" * 10_000))
    assert "\n" not in text and len(text) < 2100 and text.encode()
    made = Dropped("coco/\udcff#1", "harvest", "bad_record", "x\ud800" + "y" * 10_000)
    assert len(made.detail) < 2100 and to_table([made], Dropped).num_rows == 1


@pytest.mark.parametrize("counts", [[2**70], [[1, 2], [3, 4]], [None], ["x"], {"a": 1}, 7, "é"])
def test_rle_counts_that_are_no_list_of_whole_numbers_are_value_errors(counts: Any) -> None:
    with pytest.raises(ValueError):
        masks.from_rle([4, 4], counts, 4, 4)


def test_an_outline_without_end_is_refused_before_it_is_walked() -> None:
    zigzag = [float(v) for k in range(2000) for v in (0 if k % 2 else 20_000, k % 3000)]
    with pytest.raises(ValueError, match="outlines"):
        masks.from_polygons([zigzag], 3000, 20_000)  # would take 5 GB


def test_pictures_are_converted_in_strips_as_they_would_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_STRIP", 7)
    compared = 0
    for data in mutate.pictures():
        try:
            head = images.header(data)
        except images.ImageError:  # no format of photos
            continue
        if head.format != "JPEG" and head.mode not in ("I", "I;16", "F"):
            with Image.open(io.BytesIO(data)) as im:
                assert np.array_equal(images.decode(data), np.asarray(im.convert("RGB")))
            compared += 1
    assert compared > 15


def test_a_bad_row_of_an_import_is_text_that_can_be_written() -> None:
    bad = exchange.Bad("a\nb", "\ud800/x.jpg: no such candidate")
    assert (bad.where + bad.why).encode() and "\n" not in bad.where


def test_striped_labels_of_more_pixels_than_memory_bears_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_LABEL_PIXELS", 3000)
    for shape, good in (((50, 60), True), ((50, 61), False)):
        data = images.encode(np.zeros(shape, np.uint8), ".png")
        if good:
            assert images.read_labels(data).shape == shape
        else:
            with pytest.raises(images.ImageError, match="labels"):
                images.read_labels(data)


def test_a_progressive_jpeg_of_endless_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "JPEG", progressive=True)
    assert images.decode(out.getvalue()).shape == (64, 64, 3)
    monkeypatch.setattr(images, "MAX_SCANNED_PIXELS", 3 * 64 * 64)
    with pytest.raises(images.ImageError, match="scans"):
        images.decode(out.getvalue())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_turning_is_what_pillow_does(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (7, 11, 3), np.uint8)
    im = Image.fromarray(pixels)
    im.getexif()[0x0112] = orientation
    assert np.array_equal(images.turned(pixels, orientation), np.asarray(ImageOps.exif_transpose(im)))


# --- sources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63) - 1, 10**30])
def test_objects365_categories_of_any_number(tmp_path: Path, number: int) -> None:
    module = dataset("objects365", tmp_path)
    path = tmp_path / "zhiyuan_objv2_train.json"
    said = json.loads(path.read_bytes())
    said["categories"].append({"id": number, "name": "x"})
    path.write_text(json.dumps(said))
    assert any(x.image for x in everything(module, tmp_path))


@pytest.mark.parametrize(
    ("place", "what"),
    [("annotations", b"1e999"), ("annotations", b"1e300"), ("categories", b'"\\ud800"'),
     ("images", b'"' + b"x" * 300 + b'"')],
)  # fmt: skip
def test_objects365_fields_of_any_value(tmp_path: Path, place: str, what: bytes) -> None:
    module = dataset("objects365", tmp_path)
    path = tmp_path / "zhiyuan_objv2_train.json"
    said = json.loads(path.read_bytes())
    key = {"annotations": "image_id", "categories": "name", "images": "file_name"}[place]
    said[place].append({**said[place][0], key: "@@", "id": 777})
    path.write_bytes(json.dumps(said).encode().replace(b'"@@"', what))
    for found in everything(module, tmp_path):
        to_table(list(found.dropped), Dropped)


@pytest.mark.parametrize(
    ("place", "field", "what"),
    [("images", "file_name", b'"' + b"x" * 300 + b'.jpg"'), ("images", "file_name", b'"' + b"x" * 300 + b'/y.jpg"'),
     ("categories", "name", b'" "'), ("annotations", "image_id", b"[]"), ("annotations", "id", b'"\\udc80"')],
)  # fmt: skip
def test_objects365_first_records_of_any_value(tmp_path: Path, place: str, field: str, what: bytes) -> None:
    module = dataset("objects365", tmp_path, 2)
    path = tmp_path / "zhiyuan_objv2_train.json"
    said = json.loads(path.read_bytes())
    for record in said[place]:
        if record.get("name") != "Person":
            record[field] = "@@"
            if place == "annotations" and field == "id":
                record["image_id"] = None  # belongs nowhere: it is named by its own id
    path.write_bytes(json.dumps(said).encode().replace(b'"@@"', what))
    for entry in module.scan(tmp_path):
        assert entry.image_id.encode()
        found = module.load(tmp_path, entry)
        to_table(list(found.dropped), Dropped)
        assert found.image is None or all(i.label for i in found.image.instances)


def test_objects365_bytes_that_are_no_utf8_are_named_with_their_place(tmp_path: Path) -> None:
    module = dataset("objects365", tmp_path)
    path = tmp_path / "zhiyuan_objv2_train.json"
    path.write_bytes(path.read_bytes().replace(b"objects365_v2", b"\xff", 1))
    with pytest.raises(UserError, match="UTF-8"):
        everything(module, tmp_path)


@pytest.mark.parametrize("value", [b'"' + b"x" * 200_000 + b'"', b"1" * 200_000, b"[" * 100_000 + b"]" * 100_000])
def test_a_value_longer_than_any_record_is_refused(
    tmp_path: Path, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_RECORD", 50_000)
    path = tmp_path / "a.json"
    for text in (b'{"info": %s}' % value, b'{"images": [%s]}' % value):
        path.write_bytes(text)
        try:
            list(chunks.batches(path, {"images": dict}, block=1000))
        except UserError as e:
            assert "\n" not in str(e)


def test_open_images_boxes_beyond_all_measure_and_masks_that_are_nowhere(tmp_path: Path) -> None:
    module = dataset("openimages", tmp_path)
    path = next(tmp_path.rglob("*bbox.csv"))
    head, *rows = path.read_text().splitlines()
    cells = rows[0].split(",")
    at = head.split(",").index("XMax")
    for far in ("1e305", "-1e305", "nan"):
        rows.append(",".join([*cells[:at], far, *cells[at + 1 :]]))
    path.write_text("\n".join([head, *rows, ""]))
    masks_csv = next(tmp_path.rglob("*segmentation.csv"))
    head, *rows = masks_csv.read_text().splitlines()
    at = head.split(",").index("BoxYMax")
    cells = rows[0].split(",")
    masks_csv.write_text("\n".join([head, *rows, ",".join([*cells[:at], "nan", *cells[at + 1 :]]), ""]))
    assert {"bad_box", "mask_without_box"} <= reasons(everything(module, tmp_path))


@pytest.mark.parametrize("column", ["ImageID", "XMin", "LabelName"])
def test_open_images_headers_that_name_a_column_twice(tmp_path: Path, column: str) -> None:
    module = dataset("openimages", tmp_path)
    path = next(tmp_path.rglob("*bbox.csv"))
    path.write_text(path.read_text().replace("Source", column, 1))
    with pytest.raises(UserError, match="twice"):
        everything(module, tmp_path)


def test_open_images_classes_without_a_name_are_labelled_as_all_are(tmp_path: Path) -> None:
    module = dataset("openimages", tmp_path)
    path = next(tmp_path.rglob("*bbox.csv"))
    head, *rows = path.read_text().splitlines()
    at = head.split(",").index("LabelName")
    for mid in ("N/A", "  "):
        cells = rows[0].split(",")
        rows.append(",".join([*cells[:at], mid, *cells[at + 1 :]]))
    path.write_text("\n".join([head, *rows, ""]))
    found = everything(module, tmp_path)
    assert "n/a" in {i.label for f in found if f.image for i in f.image.instances}
    assert all(i.label == i.label.strip().lower() != "" for f in found if f.image for i in f.image.instances)


def test_open_images_header_of_one_endless_field(tmp_path: Path) -> None:
    module = dataset("openimages", tmp_path)
    path = next(tmp_path.rglob("*bbox.csv"))
    path.write_text('"' + "x" * 200_000 + '",a\n' + path.read_text())
    with pytest.raises(UserError):
        everything(module, tmp_path)


def test_open_images_hierarchy_as_deep_as_json_goes(tmp_path: Path) -> None:
    module = dataset("openimages", tmp_path)
    path = tmp_path / "bbox_labels_600_hierarchy.json"
    for depth in (100, 300, 450, 480, 495, 900, 5000):
        path.write_text('{"LabelName":"/m/01g317","Subcategory":[' * depth + "]}" * depth)
        try:
            everything(module, tmp_path)
        except UserError as e:
            assert path.name in str(e)


def test_loose_rows_are_not_all_held_at_once() -> None:
    text = b"a\n" * 100_000
    block = openimages_csv._parse(
        Path("x.csv"), text, 0, ["ImageID", "XMin"], {"ImageID": pa.string(), "XMin": pa.float64()}
    )
    assert block.table is None and not isinstance(block.loose, list)
    assert sum(1 for _ in block.loose) == 100_000


def test_a_url_of_nothing_but_digits_takes_no_hours() -> None:
    assert flickr_number("http://flickr.com/" + "1" * 1_000_000) == ""
    assert flickr_number("http://flickr.com/" + "1_" * 500_000 + "/") == ""
    assert flickr_number("https://c1.staticflickr.com/5/4123/123456_ab_o.jpg") == "123456"


@pytest.mark.parametrize("name", ["coco", "objects365"])
def test_a_photo_of_endless_annotations_is_dropped_alone(tmp_path: Path, name: str) -> None:
    module = dataset(name, tmp_path, 2)
    path = next(tmp_path.rglob("*.json"))
    said = json.loads(path.read_bytes())
    first = said["annotations"][0]
    said["annotations"] += [{**first, "id": 10_000 + k} for k in range(MAX_INSTANCES)]
    path.write_text(json.dumps(said))
    found = everything(module, tmp_path)
    assert "too_many" in reasons(found) and any(x.image for x in found)


def test_xml_with_a_document_type_or_endless_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for text in (mutate.entities(9), mutate.entities(9).decode().encode("utf-16")):
        path.write_bytes(text)
        with pytest.raises(BadValue, match="document type"):
            voc_files.annotation(path)
    path.write_bytes(b"<annotation>" + b"<object/>" * 5000 + b"</annotation>")
    with pytest.raises(BadValue, match="at most"):
        voc_files.annotation(path)


def test_a_large_label_map_of_many_instances_costs_no_mask_each(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="instances"):
        voc_files._numbers(np.broadcast_to(np.arange(1, 1200), (2, 1199)))


def test_a_mat_file_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    monkeypatch.setattr(mat, "MAX_MAT_BYTES", 10_000)
    packed = zlib.compress(bytes(20_000))
    data = bytes(124) + b"\x00\x01IM" + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    with pytest.raises(ValueError, match="unpacked"):
        mat.struct_fields(data, "GTinst", ("Segmentation",))


def test_voc_files_of_names_that_no_table_takes_are_dropped(tmp_path: Path) -> None:
    module = dataset("voc_sbd", tmp_path)
    folder = next(tmp_path.rglob("inst"))
    next(folder.glob("*.mat")).rename(os.fsdecode(os.fsencode(folder) + b"/2008_\xff.mat"))
    found = everything(module, tmp_path)
    assert "unsafe_path" in reasons(found)
    assert to_table([d for x in found for d in x.dropped], Dropped).num_rows


# --- submissions, decisions, imports --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [["a"], {"a": 1}, None, 3, "a\nb"])
def test_sample_ids_of_any_type(tmp_path: Path, name: Any) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"sample_id": name}, {"sample_id": "a", "seconds": 10**400}]))
    found = Submission(path)
    assert all("\n" not in str(p) and str(p).encode() for p in validate(found, ["a"], "d"))
    assert set(found.fetch(["a"])) == {"a"}


def test_seconds_that_no_float_holds() -> None:
    for seconds in (10**30, 10**400, float("nan"), float("inf"), -1, "x"):
        assert parse("here", {"sample_id": "a", "seconds": seconds}, Path()).seconds is None


@pytest.mark.parametrize("ids", [[1, 2], [b"\xff", b"a"], [["a"], ["b"]]])
def test_tables_whose_ids_are_no_text_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": ids}), path)
    with pytest.raises(UserError, match="sample_id"):
        validate(Submission(path), ["a"], "d")


def test_a_footer_with_any_bit_turned_neither_ends_nor_hangs_the_process(tmp_path: Path) -> None:
    """Where pyarrow 26 aborts (column metadata) or waits for ever (datasets); a regression would end this test run."""
    path, sink = tmp_path / "p.parquet", io.BytesIO()
    pq.write_table(pa.table({"sample_id": ["a", "b"], "amodal": [{"size": [256, 256], "counts": "x"}, None]}), sink)
    whole = sink.getvalue()
    kinds = Counter()
    for at in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole) - 8):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        try:
            found = Submission(path)
            validate(found, ["a"], "d")
            found.fetch(["a"])
            kinds["read"] += 1
        except UserError:
            kinds["refused"] += 1
    assert kinds["read"] > 20 and kinds["refused"] > 100


def test_tables_damaged_behind_their_footer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": [f"s{n}" for n in range(50)]}), path, compression="none")
    whole = path.read_bytes()
    for at in range(4, 60, 3):
        path.write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
        try:
            found = Submission(path)
            validate(found, ["s1"], "d")
            found.fetch(["s1"])
        except UserError as e:
            assert "\n" not in str(e)


MASK = '"mask_digest": "0000000000000000"'


@pytest.mark.parametrize(
    "more",
    ['"seconds": "x"', '"seconds": null', '"note": 5', '"at": []', '"reason": ["a"]', '"provisional": 1',
     '"note": "\\ud800"', '"corrected": {"size": [Infinity, 4], "counts": "0"}',
     '"corrected": {"size": [4, 4], "counts": 5}',
     '"note": ' + "[" * 100_000 + "]" * 100_000],
)  # fmt: skip
def test_a_decision_of_another_type_is_named_with_its_line(tmp_path: Path, more: str) -> None:
    log = tmp_path / "ann.jsonl"
    log.write_text(f'{{"id": "1", "candidate_id": "c", "verdict": "refine", "reviewer": "ann", {MASK}, {more}}}\n')
    with pytest.raises(UserError, match="line 1"):
        list(decisions.read_entries(log))


@pytest.mark.parametrize(
    "cell",
    [
        '{"height": 4, "width": 4, "counts": 1000000000000}',
        '{"size": [1e999, 4], "counts": "0"}',
        "[" * 100_000,
        "5",
        '"size"',
    ],
)
def test_a_mask_in_a_cell_that_is_none_is_a_bad_row(cell: str) -> None:
    row = {"candidate_id": "c", "verdict": "refine", "reviewer": "ann", "mask_digest": "0" * 16, "corrected": cell}
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)):
        exchange.decision_of(row)


def test_seconds_of_any_size_go_into_a_table_or_are_refused(tmp_path: Path) -> None:
    log = tmp_path / "ann.jsonl"
    line = f'{{"id": "1", "candidate_id": "c", "verdict": "preserve", "reviewer": "ann", {MASK}, "seconds": %s}}'
    for seconds in ("1" + "0" * 30, "9223372036854775808", "5"):
        log.write_text(line % seconds + "\n")
        (found,) = decisions.read_entries(log)
        assert to_table([found], Decision).num_rows == 1 and found.seconds == float(seconds)
    log.write_text(line % ("9" * 400) + "\n")
    with pytest.raises(UserError, match="line 1"):
        list(decisions.read_entries(log))


@pytest.mark.parametrize("images", [None, 5, [{"id": {}}, {"id": []}, 7]])
def test_photos_of_ids_of_any_type_stop_no_import(tmp_path: Path, images: Any) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": images, "annotations": [{"image_id": {}}]}))
    try:
        (_, read), *_ = exchange_masks._coco(path)
    except UserError:
        assert not isinstance(images, list)
        return
    with pytest.raises((ValueError, TypeError, KeyError)):
        read()
