"""Statistics, sheets and the report of a build folder: tables add up, the page needs nothing else and escapes all."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ahp_toolkit.cli import main
from ahp_toolkit.cli.build import _provisional
from ahp_toolkit.core import crops
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Candidate, Decision, Dropped, Human, Sample, Segmented
from ahp_toolkit.report import page as report
from ahp_toolkit.report import plots, sheets, statistics
from ahp_toolkit.report.charts import span
from ahp_toolkit.report.tables import Column
from ahp_toolkit.stages import scenes
from ahp_toolkit.storage import files, images, parquet
from ahp_toolkit.storage.build_folder import Build
from tests import fake_build
from tests.cli.small import data, words


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> Path:
    out = fake_build.make(tmp_path_factory.mktemp("evil"), evil=True)
    report.write_report(out, fake_build.render_of(out))
    return out


@pytest.fixture(scope="module")
def page(evil) -> str:
    return (evil / "report/index.html").read_text()


def test_funnel_adds_up(evil):
    funnel = statistics.tables(Build(evil))["funnel"].set_index("step")
    assert funnel["unaccounted"].eq(0).all()
    assert (funnel["came_in"] == funnel["went_on"] + funnel["dropped"]).all()
    assert funnel.loc["harvest", ["came_in", "went_on", "dropped"]].tolist() == [20, 16, 4]


def test_a_lost_record_shows(evil, tmp_path):
    out = fake_build.make(tmp_path)
    (out / "review/stage.json").unlink()
    (out / "review/dropped.parquet").unlink()
    build = Build(out)
    assert statistics.funnel(build).set_index("step").loc["review", "unaccounted"] == 4
    assert "4 unaccounted for" in report.write_report(out).read_text()


def test_table_1_sums_sources_and_shows_the_paper(evil):
    frame = statistics.tables(Build(evil))["table_1"].set_index("source")
    assert frame.loc["all", "count"] == 16 and frame.loc["all", "preserved"] == 8 and frame.loc["all", "refined"] == 4
    assert frame.loc["coco", "ratio"] == 0.5
    assert frame.loc["COCO + VOC + LIP", "paper_ratio"] == pytest.approx(0.2395, abs=1e-4)
    assert frame.loc["all", "paper_preserved"] == 56_599
    assert frame.loc["all", "drop:harvest:small"] == 4
    assert np.isnan(frame.loc["Objects365", "ratio"])


def test_a_named_source_counts_in_the_papers_group_of_its_format(tmp_path):
    root = fake_build.make(tmp_path / "build", photos=4)
    build = files.read_json(root / "build.json")
    files.write_json(root / "build.json", build | {"formats": dict.fromkeys(build["roots"], "lip")})
    frame = statistics.tables(Build(root))["table_1"].set_index("source")
    assert frame.loc["COCO + VOC + LIP", "count"] == frame.loc["all", "count"] == 8


def test_occlusion_counts_every_sample_and_what_was_asked(evil):
    frame = statistics.tables(Build(evil))["occlusion"]
    assert frame["count"].sum() == 24
    assert frame["requested_share"].sum() == pytest.approx(1)
    assert frame.loc[frame["low"].eq(0.4), "requested_count"].item() == pytest.approx(6)


def test_photos_of_one_scene_are_counted_as_groups(tmp_path):
    root = fake_build.make(tmp_path / "build", photos=6)
    part = parquet.parts(root / "harvest")[0]
    found = list(parquet.read_records(root / "harvest", Candidate))
    ids = sorted({c.image.image_id for c in found})
    scene = dict.fromkeys(ids[:3], "a scene") | dict.fromkeys(ids[3:], "")  # three photos of one scene, the rest alone
    moved = [replace(c, image=replace(c.image, photo=scene[c.image.image_id])) for c in found]
    parquet.write_records(part, moved, Candidate)
    table = statistics.groups(Build(root))
    assert table[["photos", "groups", "photos_in_groups", "largest_group"]].sum().to_list() == [len(ids), 1, 3, 3]


def test_the_review_line_counts_what_a_rule_has_chosen(tmp_path):
    root = fake_build.make(tmp_path / "build", photos=4)
    assert _provisional(root / "review") == " (provisional: decided by rule, not by people)"
    people = [replace(h, provisional=n == 0) for n, h in enumerate(parquet.read_records(root / "review", Human))]
    for old in parquet.parts(root / "review"):
        old.unlink()
    for chosen, line in ((people, " (1 of them provisional: decided by rule, not by people)"), (people[1:], "")):
        parquet.write_records(root / "review" / "part-00000.parquet", chosen, Human)
        assert _provisional(root / "review") == line


def test_splits_count_the_people_that_samples_are_made_of(evil):
    made = statistics.tables(Build(evil))
    assert made["splits"]["humans"].sum() == 8 and made["splits"]["to_refine"].sum() == 4
    assert made["parsing"]["humans"].tolist() == made["splits"]["humans"].tolist()


def test_tables_are_written_twice_alike_and_say_provisional(evil):
    for path in (evil / "report/tables").glob("*.parquet"):
        frame = pq.read_table(path).to_pandas()
        assert len(frame) == len(pd.read_csv(path.with_suffix(".csv")))
        assert set(frame["status"]) <= {"provisional"}


def test_page_needs_nothing_else(page):
    links = re.findall(r"(?:src|href)=[\"']?([^\"' >]+)", page)
    assert links and all(x.startswith(("data:image/", "#")) for x in links)
    assert not re.search(r"@import|url\(", page)


def test_pictures_that_load_late_keep_their_place(page):
    lazy = re.findall(r"<img loading=.lazy.[^>]{0,60}", page)
    assert lazy and all(f'width="{sheets.TILE}" height="{sheets.TILE}"' in tag for tag in lazy)


def test_every_split_has_its_chart_and_counts_have_whole_ticks(evil):
    made = statistics.tables(Build(evil))
    frame = made["occlusion"].assign(split="test")
    made["occlusion"] = pd.concat([made["occlusion"], frame])
    charts = plots.draw(made)
    assert {"aspect_ratio", "size", "drops", "occlusion_val", "occlusion_test"} <= set(charts)
    for svg in charts.values():
        ElementTree.fromstring(svg)
        assert "PROVISIONAL" in svg
    ticks = [t for _, t in span("n", 0, 3.2, whole=True).ticks]
    assert ticks == ["0", "1", "2", "3"]


def test_ids_wrap_between_their_parts_only():
    assert report._parts("coco/0012#3~1") == ["coco/", "0012#", "3~", "1"]
    assert report._parts("<b>/&") == ["<b>/", "&"] and report._parts("") == []  # the template escapes each


def test_page_escapes_what_comes_from_data(page):
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(" in page


def test_page_runs_only_its_own_script(page):
    import base64
    import hashlib

    body = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_banner_only_when_provisional(page, tmp_path):
    assert 'class="banner"' in page and page.count('class="tag"') > 8
    out = fake_build.make(tmp_path, provisional=False)
    clean = report.write_report(out).read_text()
    assert 'class="banner"' not in clean and 'class="tag"' not in clean


def test_same_build_gives_the_same_page(evil, page):
    assert report.write_report(evil, fake_build.render_of(evil)).read_text() == page


@pytest.mark.parametrize("gone", ["harvest", "segment", "parse", "review", "splits", "build.json"])
def test_missing_stages_do_not_break_the_page(tmp_path, gone):
    import shutil

    out = fake_build.make(tmp_path, photos=4)
    shutil.rmtree(out / gone) if (out / gone).is_dir() else (out / gone).unlink()
    assert report.write_report(out).stat().st_size > 10_000


def test_empty_folder_has_a_page_and_no_folder_is_an_error(tmp_path):
    assert "No stage has run yet" in report.write_report(tmp_path).read_text()
    with pytest.raises(UserError, match="expected a build folder"):
        report.write_report(tmp_path / "none")


def test_sheets_follow_the_seed_and_show_why_a_photo_is_missing(evil):
    build = Build(evil)
    first, again, other = (sheets.candidate_sheets(build, seed, 3) for seed in (0, 0, 1))
    ids = [[t.lines[0] for s in x for t in s.tiles] for x in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    missing = next(t for s in sheets.candidate_sheets(build) for t in s.tiles if t.lines[0] == "coco/0000#0")
    assert np.ptp(missing.pixels) < 16 and "missing" in missing.lines[-1]  # grey, and why
    rows = sheets.sample_sheets(build, fake_build.render_of(evil))[0]
    assert len(rows.tiles) % 6 == 0


def test_sheets_show_what_the_review_made_of_the_decisions(tmp_path):
    """The last row of the table is not the result: two of three discard one; one is corrected, then preserved."""
    out = fake_build.make(tmp_path, photos=1, provisional=False)
    whole = next(iter(parquet.read_records(out / "parse", Segmented)))
    half = whole.mask.decode().copy()
    half[:60] = False
    corrected, judged = encode(half), Human("coco/a#1", whole.candidate.image, whole.mask.box, encode(half), None, "",
                                         "val", ("ann", "bob"))  # fmt: skip
    zero = "0" * 16
    made = [
        Decision("coco/a#1", "refine", "ann", zero, corrected=corrected),
        Decision("coco/a#1", "preserve", "bob", corrected.digest),
    ]
    made += [Decision("openimages/0000#0", v, "abc"[i], zero) for i, v in enumerate(("discard", "discard", "preserve"))]
    made += [Decision("coco/b#1", "preserve", "ann", zero)]
    dropped = [Dropped("openimages/0000#0", "review", "occluded", "discard by b", "openimages")]
    dropped += [Dropped("coco/b#1", "review", "undecided", "ann: preserve", "coco")]
    parquet.write_records(out / "review/part-00000.parquet", [judged], Human)
    parquet.write_records(out / "review/decisions/part-00000.parquet", made, Decision)
    parquet.write_records(out / "review/dropped.parquet", dropped, Dropped)
    images.write_jpeg(tmp_path / "data/coco/img/0000.jpg", fake_build.photo(0))
    gone, kept = sheets.candidate_sheets(Build(out))
    assert [kept.name, gone.name] == ["candidates_preserve", "candidates_discard"] and not kept.note + gone.note
    assert [t.lines for t in kept.tiles] == [("coco/a#1", "preserve · by ann, bob")]
    assert [t.lines for t in gone.tiles] == [("openimages/0000#0", "occluded · discard by b")]
    green = (kept.tiles[0].pixels == sheets.VERDICT_COLOURS["preserve"]).all(-1)
    box = crops.square_around(judged.box, 1.5)
    line = cv2.dilate(crops.crop_mask(corrected, box, sheets.TILE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert green.any() and not (green & ~line).any()  # the corrected mask's outline, and nothing above it


def test_real_composites_were_asked_for_no_density(tmp_path):
    out = fake_build.make(tmp_path, split="test")
    mark = out / "splits/test/stage.json"
    files.write_json(mark, files.read_json(mark) | {"key": {"composites": ["x"]}})
    frame = statistics.occlusion(Build(out))
    assert (
        frame["count"].sum() == 24 and frame["requested_share"].isna().all() and frame["requested_count"].isna().all()
    )
    sample = next(iter(parquet.read_records(out / "splits/test", Sample)))
    notes = [[t.lines[1] for t in sheets.sample_tiles(replace(sample, bin=b), None)] for b in (1, -1)]
    assert notes[0][2] == "bin 1" and notes[1][2] == ""


def test_large_counts_are_whole_numbers_on_the_page_and_in_the_files(tmp_path):
    assert [Column("n").show(v) for v in (18767.33, 222.75, 99999.5, 1e6, 0.25)] == [
        "18,767.3", "222.8", "99,999.5", "1,000,000", "0.25",
    ]  # fmt: skip
    frame = pd.DataFrame({"paper_count": [1008331.0, np.nan], "share": [1 / 3, 0.1 + 0.2]})
    statistics.write_tables({"t": frame}, tmp_path)
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["1008331,0.3333333333", ",0.3"]


def test_scene_files(tmp_path):
    csv, js, bad = tmp_path / "a.csv", tmp_path / "a.json", tmp_path / "bad.csv"
    csv.write_text("image_id,scene\ncoco/1,kitchen\n")
    js.write_text('[{"image_id": "coco/1", "scene": "kitchen"}]')
    bad.write_text("image,scene\ncoco/1,kitchen\n")
    assert scenes.read_scenes(csv) == scenes.read_scenes(js) == {"coco/1": "kitchen"}
    for path in (bad, tmp_path / "none.csv", tmp_path / "a.txt"):
        with pytest.raises(UserError) as e:
            scenes.read_scenes(path)
        assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_places365_reads_the_official_form(tmp_path):
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=365)
    weights, names = tmp_path / "resnet18_places365.pth.tar", tmp_path / "categories_places365.txt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, weights)
    names.write_text("".join(f"/a/scene_{i} {i}\n" for i in range(365)))
    classify = scenes.places365(weights, names)
    assert re.fullmatch(r"scene_\d+", classify(fake_build.photo(1)))
    assert classify(fake_build.photo(1)) == classify(fake_build.photo(1))
    weights.write_bytes(b"no checkpoint")
    names.write_text("/a/airfield 0\n")
    for bad in ((weights, names), (tmp_path / "none", names)):
        with pytest.raises(UserError) as e:
            scenes.places365(*bad)
        assert "\n" not in str(e.value)


def test_occluders_lost_with_an_unreadable_photo_are_on_the_page_and_the_console(tmp_path):
    root = data(tmp_path / "coco", 4)
    picture = sorted((root / "train2017").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:-300])
    args = ("build", *words(root, tmp_path / "o", "-q", "--stop-after", "harvest")[1:])
    said = CliRunner().invoke(main.ahp, args, catch_exceptions=False).output
    assert "3 other instances and 6 persons can occlude, 3 are lost with photos that cannot be read" in said
    frame = statistics.tables(Build(tmp_path / "o"))["occluders"]
    assert frame[["source", "things", "persons", "lost", "in_banks"]].values.tolist() == [["coco", 3, 6, 3, 0]]
    page = report.write_report(tmp_path / "o").read_text()
    heading = page.index("<h3>Occluders</h3>")
    assert re.findall(r'data-key="(\w+)"', page[heading:])[:4] == ["coco", "3", "6", "3"]
