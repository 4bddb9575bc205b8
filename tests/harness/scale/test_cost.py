"""The cost model on known answers, and its pictures and page on made-up points."""

from __future__ import annotations

import pytest

from tests.harness.scale import cost, plots
from tests.harness.scale.cost import Assumed, Rates, bill

PLAIN = Rates(
    scan_s_a_human=0.0, harvest_s_a_photo=0.0, verify_s_a_photo=0.0, duplicates_s_a_photo=0.0, segment_s_a_human=0.0,
    synth_s_a_sample=0.0, materialize_s_a_sample=0.0, push_s_a_candidate=0.0, photos_a_human=0.5,
)  # fmt: skip


def point(stage, subject, size, cpu, said, **more):
    return {
        "name": f"{stage}/{subject}/{size:g}", "stage": stage, "subject": subject, "size": size, "wall_s": 2 * cpu,
        "cpu_s": cpu, "peak_mb": 200.0, "base_mb": 100.0, "asked": 10**6, "given": 10**5, "disk_read": 0,
        "disk_written": 0, "said": said,
    } | more  # fmt: skip


POINTS = [
    point("scan", "objects365", 0.1, 6.0, {"boxes": 2_540_000}),
    point("harvest", "objects365", 0.1, 66.0, {"humans": 100_000, "photos": 60_000, "table_bytes": 10**8}),
    point("synth", "people", 1_000, 20.0, {"humans": 900, "samples": 1_000, "table_bytes": 2 * 10**6, "files": 300}),
    point("synth", "people", 10_000, 210.0, {"humans": 900, "samples": 10_000, "table_bytes": 10**7, "files": 2000}),
    point("duplicates", "photos", 1_000, 1.0, {"photos": 1_000}),
]


def test_known_bills():
    one = bill(3_600_000, PLAIN, Assumed(box_only=1.0, gpu_segment_a_s=100, gpu_parse_a_s=1000, decision_s=1))
    assert one.gpu_hours == {"segment": 10.0, "parse": 1.0}
    assert one.people_hours == 500 and one.storage_gb["photos"] == pytest.approx(3_600_000 * 0.5 * 190e3 / 1e9)
    assert one.bottleneck == "reviewers" and sum(one.cpu_hours.values()) == 0
    from dataclasses import replace

    slow = bill(3_600_000, replace(PLAIN, segment_s_a_human=1.0), Assumed(cores=10, triage_left=0.0))
    assert slow.cpu_hours["segment (masks known)"] == 1000
    assert slow.days["CPU"] == pytest.approx(1000 / 10 / 24)
    assert slow.bottleneck == slow.machine_bottleneck == "CPU"


def test_the_bill_is_linear_and_says_what_does_not_fit():
    a = Assumed(memory_bytes=10e9)
    small, large = (bill(n, Rates(), a) for n in (10**6, 10**9))
    assert sum(large.cpu_hours.values()) == pytest.approx(1000 * sum(small.cpu_hours.values()))
    assert not small.does_not_fit and any("duplicates" in x for x in large.does_not_fit)


def test_rates_are_slopes_between_sizes_where_there_are_two():
    r = cost.rates(POINTS)
    assert r.synth_s_a_sample == pytest.approx(190 / 9000) and r.files_a_sample == pytest.approx(1700 / 9000)
    assert r.harvest_s_a_photo == pytest.approx(60 / 60_000) and r.photos_a_human == pytest.approx(0.6)
    assert r.scan_s_a_human == pytest.approx(6 / 100_000)
    assert r.duplicates_bytes_a_photo == Rates().duplicates_bytes_a_photo  # one size says nothing of a slope
    assert r.duplicates_s_a_photo == pytest.approx(1e-3)
    assert "synth_s_a_sample" in r.measured and "network_s_a_human" not in r.measured


def test_the_page_holds_every_picture_and_the_plan(tmp_path):
    plan = cost.plan(cost.rates(POINTS))
    assert [row[0] for row in cost.rows(plan)].count("bottleneck") == 1
    page = plots.write(POINTS, plan, tmp_path).read_text()
    assert page.count("data:image/png") == len(list(tmp_path.glob("*.png"))) == 5
    assert "1 billion" in page and "synth/people/10000" in page
    assert "bottleneck of the machines" in cost.text(plan)
