"""The logs of what people said: nothing that was acknowledged goes without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import jsonl
from ahp_toolkit.decisions import log as decisions
from ahp_toolkit.decisions.merge import logs_of
from ahp_toolkit.decisions.voices import Words


def spoken(log: Path, n: int = 4) -> None:
    for i in range(n):
        decisions.append(log, Decision(f"c{i}", "discard", "ann"))


@pytest.mark.parametrize("cut", ["line", "middle", "all"])
def test_a_log_cut_short_is_told_by_every_reader_and_by_the_next_word(tmp_path, cut):
    log = tmp_path / "decisions" / "ann.jsonl"
    spoken(log)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes({"line": b"".join(lines[:2]), "middle": b"".join(lines[:2]) + lines[2][:9], "all": b""}[cut])
    readers = (
        lambda: list(decisions.read_log(log)),
        lambda: Words(log.parent).refresh(),
        lambda: decisions.append(log, Decision("d", "discard", "ann")),
    )
    for reader in readers:
        with pytest.raises(UserError, match=r"acknowledged: cut short or changed.*\.ann\.jsonl\.end"):
            reader()
    log.with_name(".ann.jsonl.end").unlink()  # the way out that the line names
    decisions.append(log, Decision("d", "discard", "ann"))
    assert [d.candidate_id for d in decisions.read_log(log)][-1] == "d"


def test_a_changed_or_deleted_log_is_told(tmp_path):
    log = tmp_path / "decisions" / "ann.jsonl"
    spoken(log)
    log.write_bytes(log.read_bytes().replace(b'"c1"', b'"c7"'))
    with pytest.raises(UserError, match="cut short or changed"):
        list(decisions.read_log(log))
    log.unlink()
    with pytest.raises(UserError, match="is gone; bring it back"):
        logs_of(tmp_path)


def test_a_last_line_without_its_end_counts_everywhere_when_it_is_whole(tmp_path):
    log = tmp_path / "decisions" / "ann.jsonl"
    log.parent.mkdir()
    log.write_text(decisions.to_json(Decision("a", "discard", "ann")))  # an editor's file
    words = Words(log.parent)
    assert words.refresh() == {"a"} and [d.candidate_id for d in decisions.read_log(log)] == ["a"]
    decisions.append(log, Decision("b", "discard", "ann"))
    assert words.refresh() == {"b"} and [d.candidate_id for d in decisions.read_log(log)] == ["a", "b"]


def test_a_log_without_its_last_line_end_is_read_once(tmp_path):
    log = tmp_path / "decisions" / "ann.jsonl"
    log.parent.mkdir()
    lines = [decisions.to_json(Decision(c, "discard", "ann")) for c in "abc"]
    log.write_text("\n".join(lines[:2]))
    words = Words(log.parent)
    assert [words.follow() for _ in range(3)] == [{"a", "b"}, set(), set()]
    log.write_text("\n".join(lines) + "\n")
    assert [words.follow() for _ in range(2)] == [{"c"}, set()]
    with log.open("a") as f:
        f.write("{}\n")
    words.follow()
    assert f"{log}, line 4:" in words.trouble  # the line end that came later is no line


def test_two_processes_share_what_is_known_of_a_log(tmp_path):
    log = tmp_path / "words.jsonl"
    jsonl.append(log, {"a": 1})
    jsonl._KNOWN.clear()  # another process
    jsonl.append(log, {"a": 2})
    assert list(jsonl.read(log)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_torn_note_of_what_was_acknowledged_leaves_the_one_before(tmp_path, words):
    """A kill in the middle of that write, anywhere, and the log cut after it: still told."""
    log, end = tmp_path / "words.jsonl", tmp_path / ".words.jsonl.end"
    for i in range(words):
        jsonl.append(log, {"a": i})
    before, acknowledged = end.read_bytes(), log.stat().st_size
    jsonl.append(log, {"a": words})
    after, lines = end.read_bytes(), log.read_bytes()
    changed = [i for i in range(len(after)) if after[i : i + 1] != before[i : i + 1]]
    for at in range(changed[0], changed[-1] + 1):
        end.write_bytes(after[:at] + before[at:])
        log.write_bytes(lines)
        assert len(list(jsonl.read(log))) == words + 1
        log.write_bytes(lines[: acknowledged - 5])
        with pytest.raises(UserError, match="cut short or changed"):
            list(jsonl.read(log))
