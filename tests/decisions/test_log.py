"""Decision logs: a line is there whole or not at all, ids unite logs, and a bad line is named."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.log import Retraction
from ahp_toolkit.decisions.state import Decisions
from tests.annotation.small import person, rectangle, write

MASK = encode(rectangle(5, 5, 30, 60))
CARRYING = Decision("a", "preserve", "ann", MASK.digest, corrected=MASK)
ZERO = "0" * 16


def of(candidate_id: str, verdict: str = "discard", who: str = "ann", **more) -> Decision:
    return Decision(candidate_id, verdict, who, ZERO, **more)


@pytest.mark.parametrize(
    "entry",
    [
        of("a", reason="occluded", note="né\n'", at="2026-01-01T00:00:00.000+00:00", seconds=1.5, provisional=True),
        CARRYING,
        Decision("a", "refine", "ann", ZERO, corrected=MASK),
        Retraction("a", "ann", "0" * 32, "2026-01-01T00:00:00.000+00:00"),
    ],
)
def test_an_entry_comes_back_from_its_line(tmp_path, entry):
    path = tmp_path / "d.jsonl"
    log.append(path, entry)
    assert list(log.read_entries(path)) == [entry]
    assert json.loads(path.read_text())["id"] == entry.id


def test_an_id_is_the_digest_of_the_content_and_a_given_one_is_kept():
    assert of("a").id == of("a").id and len({of("a").id, of("b").id, of("a", "refine").id, of("a", at="x").id}) == 4
    assert of("a", id="mine").id == "mine"
    assert Retraction("a", "ann", "x", "t").id == Retraction("a", "ann", "y", "t").id  # sent again, it takes one back


def test_each_id_counts_once_and_a_retraction_takes_its_own_decision_back_in_any_order(tmp_path):
    first, second, other = of("a"), of("a", "preserve"), of("a", who="bob")
    path = tmp_path / "d.jsonl"
    for entry in (Retraction("a", "ann", second.id), first, second, first, other):
        log.append(path, entry)
    assert log.read_decisions([path, path]) == [first, other]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}", "is missing"),
        ("[]", "expected an object"),
        ("no", "Expecting value"),
        ('{"retracts": 1, "candidate_id": "a", "reviewer": "ann", "at": "", "id": "x"}', "another type"),
        ('{"id": "1", "candidate_id": "a", "verdict": "discard", "reviewer": "ann"}', "field mask_digest is missing"),
        (log.to_json(of("a")).replace("discard", "keep"), "expected one of discard"),
        (log.to_json(of("a")).replace(ZERO, "mine"), "16 hex digits"),
        (log.to_json(of("a"))[:-1] + ', "device": "x"}', "unknown fields"),
        (log.to_json(of("a"))[:-1] + ', "corrected": {"size": [4, 4], "counts": "x"}}', "RLE"),
        (log.to_json(CARRYING).replace(MASK.digest, ZERO), "that of the mask it carries"),
    ],
)  # fmt: skip
def test_a_bad_line_names_file_and_line_and_hides_no_other(tmp_path, line, why):
    root = write(tmp_path, [person(1)])
    path = log.path_of(root, "ann")
    log.append(path, of("a"))
    with path.open("a") as f:
        f.write(line + "\n")
    log.append(path, of("b"))
    with pytest.raises(UserError, match=rf"ann.jsonl, line 2: expected one decision as JSON \(.*{why}"):
        list(log.read_entries(path))
    state = Decisions(root)
    assert state.follow() == {"a", "b"} and "line 2" in state.trouble
    with pytest.raises(UserError, match="line 2"):
        state.refresh()


def test_a_line_cut_by_a_crash_is_left_out_and_does_not_spoil_the_next(tmp_path):
    root = write(tmp_path, [person(1)])
    path = log.path_of(root, "ann")
    log.append(path, of("a"))
    whole = path.read_bytes()
    for cut in (b'{"candidate_id": "b", "ver', "{'\u00e9".encode()[:-1], b"x" * 9000):
        path.write_bytes(whole + cut)
        assert [d.candidate_id for d in log.read_decisions([path])] == ["a"]
        state = Decisions(root).refresh()
        log.append(path, of("c", "preserve"))
        assert state.follow() == {"c"}
        assert [d.candidate_id for d in log.read_decisions([path])] == ["a", "c"]


def test_a_last_line_without_its_end_is_read_once_when_it_is_whole(tmp_path):
    root = write(tmp_path, [person(1)])
    path = log.path_of(root, "ann")
    path.parent.mkdir()
    lines = [log.to_json(of(c)) for c in "abc"]
    path.write_text("\n".join(lines[:2]))  # an editor's file
    state = Decisions(root)
    assert [state.follow() for _ in range(3)] == [{"a", "b"}, set(), set()]
    log.append(path, of("c"))
    assert [state.follow() for _ in range(2)] == [{"c"}, set()]
    assert path.read_text().splitlines() == lines
    with path.open("a") as f:
        f.write("{}\n")
    state.follow()
    assert f"{path}, line 4:" in state.trouble  # the line end that came later is no line


def test_a_log_that_was_replaced_is_read_again(tmp_path):
    root = write(tmp_path, [person(1)])
    path = log.path_of(root, "ann")
    for c in "ab":
        log.append(path, of(c))
    state = Decisions(root).refresh()
    path.unlink()
    log.append(path, of("b"))
    state.follow()
    assert set(state.mine("ann")) == {"b"} and set(state.cases) == {"b"}


def test_a_disk_that_takes_a_part_of_a_line_keeps_none_of_it(tmp_path, monkeypatch):
    path = tmp_path / "d.jsonl"
    log.append(path, of("a"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:9]))
    with pytest.raises(OSError, match="only a part"):
        log.append(path, of("b"))
    monkeypatch.setattr(os, "write", real)
    assert [d.candidate_id for d in log.read_decisions([path])] == ["a"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "rule", "a.b", "1", "x" * 65])
def test_names_that_cannot_name_a_log_are_refused(name):
    with pytest.raises(UserError, match="--reviewer"):
        log.check_name(name)


def test_times_of_any_zone_are_compared_as_times():
    assert log.utc("2026-01-01T10:30:00+02:00") == "2026-01-01T08:30:00.000+00:00"
    assert log.when("yesterday") == log.when("") < log.when("2026-01-01")
    for text in ("yesterday", "2026-01-01T08:30:00", "2026-01-01", ""):
        with pytest.raises(ValueError, match="ISO 8601 with a zone"):
            log.utc(text)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["discard", "preserve", "refine", ""])), max_size=25))
def test_taking_back_brings_the_decision_before_it_back(moves):
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), [person(1)])
        path, state = log.path_of(root, "ann"), Decisions(root)
        stacks: dict[str, list[Decision]] = {"a": [], "b": []}
        for k, (cid, verdict) in enumerate(moves):
            at = f"2026-01-01T00:00:{k:02d}+00:00"
            if verdict:
                stacks[cid].append(of(cid, verdict, at=at))
                log.append(path, stacks[cid][-1], sync=False)
            elif stacks[cid]:
                log.append(path, Retraction(cid, "ann", stacks[cid].pop().id, at), sync=False)
            state.refresh()
            assert state.mine("ann") == {c: s[-1] for c, s in stacks.items() if s}
        if path.exists():
            assert sorted(d.id for d in log.read_decisions([path])) == sorted(d.id for s in stacks.values() for d in s)
