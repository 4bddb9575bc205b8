"""Words between the panel and the log: the panel's script in node, the plugin's operators without FiftyOne."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.jsonl import append_line
from ahp_toolkit.decisions.mask_history import digest
from annotation.session.session import Session, log_path
from tests.annotation.small import person, rectangle, write

node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
PEOPLE = [person(k) for k in range(1, 7)]
IDS = [s.candidate.candidate_id for s in PEOPLE]


def played(scenario: str) -> dict[str, Any]:
    run = subprocess.run(
        ["node", str(Path(__file__).with_name("panel.js")), scenario], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


@node
def test_a_word_that_meets_an_error_is_kept_and_sent_until_it_is_taken():
    said = played("error")
    assert said["kept"] == ["c0", "c1", "c2"] and said["told"]
    assert said["logged"] == ["c0", "c1", "c2"]
    assert said["left"] == said["refused"] == []


@node
def test_a_refused_word_is_told_and_not_sent_again():
    said = played("refused")
    assert said["left"] == [] and said["refused"] == ["c0: no such verdict"]
    assert said["told"]  # and so is what cannot be read of others' words


@node
def test_a_failed_fetch_is_not_tried_again_for_a_view_that_is_left():
    assert played("retry") == {"twice": False, "ids": ["a", "b"]}


@node
def test_a_mended_mask_that_is_taken_back_is_not_shown_any_longer():
    said = played("mended")
    first, new = "0", "f"
    assert said["asked"] == [
        ["c0", "refine", first], ["c0", "", new], ["c0", "preserve", new], ["c0", "", new],
        ["c0", "preserve", first], ["c0", "", first], ["c0", "", first],
    ]  # fmt: skip
    assert said["early"] is None  # no word before the picture is there


@node
def test_what_has_a_new_mask_or_was_passed_over_is_asked_for_before_nothing_is_left():
    said = played("reopened")
    assert said["seen"] == [[], ["a", "b", "c"], ["c"], ["b", "a"], ["a"]]
    assert (said["ids"], said["at"]) == (["c", "b", "a"], 1)
    assert said["asked"] is None


def test_what_has_a_new_mask_and_an_old_word_is_not_asked_for_again_before_the_end():
    said = played("passed")
    assert said["seen"] == [[], ["r", "s", "a"], ["r", "s", "a", "b"], ["r", "s", "a", "b", "c"]]
    assert said["ids"] == ["r", "s", "a", "b", "c", "d"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "build", PEOPLE, photos=True)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin on a stub of FiftyOne."""
    operators = ModuleType("fiftyone.operators")
    operators.Operator = type("Operator", (), {})  # type: ignore[attr-defined]
    operators.OperatorConfig = SimpleNamespace  # type: ignore[attr-defined]
    stub = ModuleType("fiftyone")
    stub.operators = operators  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", stub)
    monkeypatch.setitem(sys.modules, "fiftyone.operators", operators)
    monkeypatch.delitem(sys.modules, "annotation.plugin", raising=False)
    yield importlib.import_module("annotation.plugin")
    sys.modules.pop("annotation.plugin")


def asking(plugin: ModuleType, session: Session, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(plugin, "_session", lambda: session)
    return lambda **params: plugin.Decide().execute(SimpleNamespace(params=params))


def logged(root: Path) -> list[str]:
    return [d.candidate_id for d in log.read_log(log_path(root, "ann"))]


def test_another_reviewers_log_costs_nobody_a_word(root, plugin, monkeypatch):
    session = Session(root, "ann")
    decide = asking(plugin, session, monkeypatch)
    bob = log_path(root, "bob")
    log.append(bob, Decision(IDS[4], "preserve", "bob"))
    session.listen()
    log.append(bob, Decision(IDS[5], "preserve", "bob"))
    append_line(bob, json.dumps({"candidate_id": IDS[3], "verdict": "discard", "reviewer": "bob", "device": "x"}))
    for k in (0, 1):
        for _ in range(2):  # the answer was lost: it is sent again
            said = decide(candidate_id=IDS[k], verdict="discard", at=f"2026-01-01T00:00:0{k}Z")
            assert said["mine"]["verdict"] == "discard" and f"{bob}, line 3" in said["progress"]["trouble"]
    assert logged(root) == IDS[:2]
    assert [d.reviewer for d in session.words.said(IDS[5])] == ["bob"]  # good lines before the bad one are heard
    assert f"{bob}, line 3" in session.queue(n=1)["progress"]["trouble"]
    gone = bob.rename(root / "bob.moved")
    said = decide(candidate_id=IDS[2], verdict="preserve", at="2026-01-01T00:00:05Z")
    assert said["mine"]["verdict"] == "preserve" and "is gone" in said["progress"]["trouble"]
    assert logged(root) == IDS[:3]
    lines = gone.read_bytes().splitlines(keepends=True)
    bob.with_name(".bob.jsonl.end").unlink()
    bob.write_bytes(b"".join(lines[:2]))  # mended as the message says
    log.append(bob, Decision(IDS[3], "discard", "bob"))
    assert session.queue(n=1)["progress"]["trouble"] == ""
    assert [d.verdict for d in session.words.said(IDS[3])] == ["discard"]


def test_taking_a_mended_mask_back_answers_with_the_one_shown_before(root, plugin, monkeypatch):
    session = Session(root, "ann")
    decide = asking(plugin, session, monkeypatch)
    first = session.item(IDS[0])["shown"]
    new = encode(rectangle(5, 5, 30, 60))
    session.correct(IDS[0], new)
    for _ in range(2):  # the answer was lost: it is sent again
        said = decide(candidate_id=IDS[0], verdict="", at="2026-01-01T00:00:00Z", shown=digest(new))
        assert said["item"]["shown"] == first and said["mine"] is None
    decide(candidate_id=IDS[0], verdict="discard", shown=first)
    assert "item" not in decide(candidate_id=IDS[0], verdict="", shown=first)


def test_only_what_is_no_word_is_refused(root, plugin, monkeypatch):
    decide = asking(plugin, Session(root, "ann"), monkeypatch)
    for bad in (
        {"candidate_id": "no/such#1", "verdict": "discard"},
        {"candidate_id": IDS[0], "verdict": "keep"},
        {"candidate_id": IDS[0], "verdict": "discard", "reason": "ugly"},
        {"candidate_id": IDS[0], "verdict": "discard", "shown": "mine"},
        {"candidate_id": IDS[0], "verdict": "discard", "seconds": "long"},
        {"verdict": "discard"},
    ):
        assert set(decide(**bad)) == {"refused"}
    log.append(log_path(root, "ann"), Decision(IDS[0], "preserve", "ann"))
    log_path(root, "ann").write_text("")  # this reviewer's own log is damaged: the panel must keep the word
    with pytest.raises(Exception, match="cut short or changed"):
        decide(candidate_id=IDS[0], verdict="discard")
