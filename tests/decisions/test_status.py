"""The review's status as text and HTML, and the commands that need no screen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision, Human, Occluder
from ahp_toolkit.decisions import proposals, status
from ahp_toolkit.decisions.log import SETTLED
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.triage import triage
from ahp_toolkit.storage import parquet
from annotation.composites import commands as composites_commands
from annotation.exchange import commands as exchange_commands
from annotation.session import commands as session_commands
from tests.annotation.small import person, say, write
from tests.annotation.test_compose import human, objects

PEOPLE = [person(i, k, s) for s in ("coco", "openimages") for i in range(5) for k in range(2)]
IDS = [p.candidate.candidate_id for p in PEOPLE]


@pytest.fixture
def root(tmp_path):
    write(tmp_path, PEOPLE, photos=True)
    for i, cid in enumerate(IDS[:6]):
        say(tmp_path, "ann", cid, ("preserve", "discard")[i % 2], reason=("", "occluded")[i % 2], seconds=1.63)
    for cid, verdict in zip(IDS[:4], ("preserve", "discard", "refine", "preserve"), strict=True):
        say(tmp_path, "bob", cid, verdict, seconds=400.0)
    say(tmp_path, "bob", "gone/1#1", "discard")
    rule = [Decision(c, "discard", "rule", "0" * 16, provisional=True) for c in IDS]
    parquet.write_records(tmp_path / "decide/part-00000.parquet", rule, Decision)
    return tmp_path


def rows(root, title, merge=None):
    found = [t for t in status.tables(status.status(root, merge)) if t.title == title]
    return {r[0].strip(): r[1:] for t in found for r in t.rows}


def test_counts_add_up_under_each_rule(root):
    found = rows(root, "Review")
    assert {k: v[0] for k, v in found.items()} == {
        "candidates": "20", "decided by people": "6", "discard": "3", "preserve": "2", "refine": "1",
        "nobody has looked": "14", "of them decided by a rule (provisional)": "14",
        "decisions on unknown candidates": "1",
    }  # fmt: skip
    strict = rows(root, "Review", Merge("unanimous", least=2))
    assert (strict["decided by people"][0], strict["reviewers disagree"][0]) == ("2", "2")
    assert strict["waiting for another reviewer"][0] == "2"  # who is not of the build waits for nobody


def test_ratio_by_source_stands_beside_the_papers(root):
    found = rows(root, "Preserved ratio (Table 1)")
    assert found["coco"] == ("10", "6", "2", "1", "33.3 %", "", "23.9 %")
    assert found["openimages"] == ("10", "0", "0", "0", "", "", "5.6 %")
    assert found["all"][:2] == ("20", "6")


def test_pace_against_the_paper_with_pauses_capped(root):
    found = rows(root, "Pace")
    assert found["ann"] == ("6", "1.63", "1.63", "2.00 times as fast")
    assert found["bob"][1:3] == ("60.00", "60.00") and found["all"][0] == "10"


def test_agreement_is_there_with_intervals(root):
    found = rows(root, "Agreement")
    assert found["raw agreement"][0] == "0.500" and found["raw agreement"][2] == "4"
    assert {"Fleiss' kappa", "Cohen's kappa, ann and bob", "ann with the majority of the others"} <= found.keys()
    assert rows(root, "Agreement by reason")["occluded"][0] == "0.500"
    assert rows(root, "Disagreements") == {
        IDS[2]: ("ann: preserve, bob: refine", "refine"), IDS[3]: ("ann: discard, bob: preserve", "discard"),
    }  # fmt: skip


def test_people_whom_the_build_does_not_have_count_nowhere_but_in_their_own_row(root):
    for i, p in enumerate(many := [person(i, 0, "gone") for i in range(30)]):
        say(root, "ann", p.candidate.candidate_id, "discard", reason="blurred")
        say(root, "bob", p.candidate.candidate_id, ("discard", "preserve")[i % 2])
    before = rows(root, "Agreement"), rows(root, "Agreement by reason"), rows(root, "Review", Merge("unanimous"))
    proposals.propose(root, [replace(p, mask=PEOPLE[1].mask) for p in many])
    found = rows(root, "Review", Merge("unanimous"))
    assert found == before[2] and found["decisions on unknown candidates"] == ("31", "")
    assert (found["reviewers disagree"][0], found["reviewers disagree"][1]) == ("2", "10.0 %")
    assert before[0]["raw agreement"][2] == "4" and before[1].keys() == {"occluded"}
    assert rows(root, "Disagreements").keys() == {IDS[2], IDS[3]}


def test_settling_makes_a_decision_and_no_agreement(root):
    before = rows(root, "Agreement"), rows(root, "Agreement by reason")
    say(root, "ann", IDS[2], "refine", note=SETTLED)  # what bob found, once she has seen it
    say(root, "cho", IDS[3], "preserve", note=SETTLED)
    assert (rows(root, "Agreement"), rows(root, "Agreement by reason")) == before
    assert before[0]["raw agreement"][0] == "0.500" and before[0]["raw agreement"][2] == "4"
    assert status.status(root).verdicts == dict(
        zip(IDS[:6], ("preserve", "discard", "refine", "preserve", "preserve", "discard"), strict=True)
    )


def test_few_shared_candidates_give_no_kappa_and_no_interval(root):
    found = rows(root, "Agreement")
    assert found["Fleiss' kappa"] == found["Cohen's kappa, ann and bob"] == ("–", "–", "4")
    assert found["raw agreement"][1] == "–" and "fewer than 10 candidates" in status.status_html(root)
    for cid in IDS[4:]:
        say(root, "ann", cid, "preserve")
        say(root, "bob", cid, "preserve")
    found = rows(root, "Agreement")
    assert (
        found["Fleiss' kappa"][2] == "20" and " to " in found["Fleiss' kappa"][1] and found["Fleiss' kappa"][0] != "–"
    )


def test_what_triage_saved_and_the_audits_ratio(root):
    assert rows(root, "Triage") == {}
    triage.run_triage(root, triage.Settings(audit=0.5))
    found = rows(root, "Triage")
    assert found["scores by"] == ("rule",) and found["discarded unseen"] == ("0 (0.0 %)",)
    assert "299 audited preserves" in found["proof"][0]


def test_text_and_html_hold_all_tables_and_escape_what_comes_from_data(root):
    write(root, [*PEOPLE, person(1, 0, "<script>")])
    for who, verdict in (("ann", "discard"), ("bob", "preserve"), ("<script>", "refine")):
        say(root, who, "<script>/000001#0", verdict)
    text, page = status.status_text(status.status(root)), status.status_html(root, page=True)
    for table in status.tables(status.status(root)):
        assert table.title in text and f"<h3>{table.title}</h3>" in page
    assert "<script>/000001#0" in text and "<script>: refine" in text
    assert "<script>" not in page and page.startswith("<!doctype html>")
    assert status.status_html(root).startswith('<section id="review">')


def test_an_untouched_build_has_a_status_too(tmp_path):
    write(tmp_path, PEOPLE)
    assert "nobody has looked" in status.status_text(status.status(tmp_path))
    with pytest.raises(UserError, match="expected a table"):
        status.status(tmp_path / "nothing")


def run(command, *args, code=0):
    done = CliRunner().invoke(command, [str(a) for a in args])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_the_commands_from_end_to_end(root, tmp_path):
    at = ("--root", root)
    assert "Agreement" in run(session_commands.status, *at, "--html", tmp_path / "s.html", "--merge", "unanimous")
    assert (tmp_path / "s.html").exists()
    out = run(exchange_commands.export, *at, "--decisions", tmp_path / "d.csv", "--coco", tmp_path / "m.json",
              "--png", tmp_path / "m", "--verdict", "refine")  # fmt: skip
    assert "11 decisions" in out and out.count("1 masks") == 2
    out = run(exchange_commands.import_, *at, tmp_path / "d.csv", code=1)
    assert "0 taken, 10 known already, 1 bad" in out and "gone/1#1: no such candidate" in out
    assert "0 taken, 1 known" in run(exchange_commands.import_, *at, tmp_path / "m.json", "--reviewer", "cho")
    assert "scores by: rule" in run(session_commands.triage, *at, "--workers", 1)


def test_compose_from_the_command_line(tmp_path):
    write(tmp_path, [person(i, 1) for i in (0, 1, 9)], photos=True)
    parquet.write_records(tmp_path / "review/part-00000.parquet", [human(0)], Human)
    parquet.write_records(tmp_path / "harvest/occluders/part-00000.parquet", objects(), Occluder)
    out = run(composites_commands.compose, "--root", tmp_path, "--workers", 1)
    assert "1 people, 1 proposals (1 within one photo), 0 people without any; 0 passed so far" in out
    done = CliRunner().invoke(composites_commands.compose, ["--root", str(tmp_path), "--write"])
    assert isinstance(done.exception, UserError)


def test_the_status_of_a_folder_that_is_no_build_says_so(tmp_path):
    done = CliRunner().invoke(composites_commands.compose, ["--root", str(tmp_path)])
    assert "expected a build folder" in str(done.exception)
