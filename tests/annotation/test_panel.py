"""Decisions between the panel and the log: the panel's script in node, the plugin's operators without FiftyOne."""

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
from ahp_toolkit.decisions.log import append_line, path_of
from annotation.session.session import Session
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
def test_a_decision_that_meets_an_error_is_kept_and_sent_until_it_is_taken():
    found = played("error")
    assert found["kept"] == ["c0", "c1", "c2"] and found["named"]
    assert found["logged"] == ["c0", "c1", "c2"]
    assert found["left"] == found["refused"] == []


@node
def test_a_refused_decision_is_named_and_not_sent_again():
    found = played("refused")
    assert found["left"] == [] and found["refused"] == ["c0: no such verdict"]
    assert found["named"]  # and so is a log of others that cannot be read


@node
def test_a_failed_fetch_is_not_tried_again_for_a_view_that_is_left():
    assert played("retry") == {"twice": False, "ids": ["a", "b"]}


@node
def test_a_corrected_mask_that_is_taken_back_is_not_shown_any_longer():
    found = played("corrected")
    first, new = "0", "f"
    assert found["sent"] == [
        ["c0", "refine", first], ["c0", "", new], ["c0", "preserve", new], ["c0", "", new],
        ["c0", "preserve", first], ["c0", "", first], ["c0", "", first],
    ]  # fmt: skip
    assert found["early"] is None  # no decision before the picture is there


@node
def test_what_has_a_new_mask_or_was_passed_over_is_asked_for_before_nothing_is_left():
    found = played("reopened")
    assert found["seen"] == [[], ["a", "b", "c"], ["c"], ["b", "a"], ["a"]]
    assert (found["ids"], found["at"]) == (["c", "b", "a"], 1)
    assert found["sent"] is None


def test_what_has_a_new_mask_and_an_old_decision_is_not_asked_for_again_before_the_end():
    found = played("passed")
    assert found["seen"] == [[], ["r", "s", "a"], ["r", "s", "a", "b"], ["r", "s", "a", "b", "c"]]
    assert found["ids"] == ["r", "s", "a", "b", "c", "d"]


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


def of(k: int, verdict: str) -> Decision:
    return Decision(IDS[k], verdict, "bob", PEOPLE[k].mask.digest)


def operator(plugin: ModuleType, session: Session, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(plugin, "_session", lambda: session)
    return lambda **params: plugin.Decide().execute(SimpleNamespace(params=params))


def logged(root: Path) -> list[str]:
    return [d.candidate_id for d in log.read_decisions([path_of(root, "ann")])]


def test_another_reviewers_log_costs_nobody_a_decision(root, plugin, monkeypatch):
    session = Session(root, "ann")
    decide = operator(plugin, session, monkeypatch)
    bob = path_of(root, "bob")
    log.append(bob, of(4, "preserve"))
    session.follow()
    log.append(bob, of(5, "preserve"))
    append_line(bob, json.dumps({"candidate_id": IDS[3], "verdict": "discard", "reviewer": "bob", "device": "x"}))
    for k in (0, 1):
        for _ in range(2):  # the answer was lost: it is sent again
            found = decide(candidate_id=IDS[k], verdict="discard", at=f"2026-01-01T00:00:0{k}Z")
            assert found["mine"]["verdict"] == "discard" and f"{bob}, line 3" in found["progress"]["trouble"]
    assert logged(root) == IDS[:2]
    assert [d.reviewer for d in session.state.finals(IDS[5])] == ["bob"]  # good lines beside the bad one count
    assert f"{bob}, line 3" in session.queue(n=1)["progress"]["trouble"]
    lines = bob.read_bytes().splitlines(keepends=True)
    bob.unlink()
    bob.write_bytes(b"".join(lines[:2]))  # corrected as the message says
    log.append(bob, of(3, "discard"))
    assert session.queue(n=1)["progress"]["trouble"] == ""
    assert [d.verdict for d in session.state.finals(IDS[3])] == ["discard"]


def test_taking_a_corrected_mask_back_answers_with_the_one_shown_before(root, plugin, monkeypatch):
    session = Session(root, "ann")
    decide = operator(plugin, session, monkeypatch)
    first = session.item(IDS[0])["mask_digest"]
    new = encode(rectangle(5, 5, 30, 60))
    session.correct(IDS[0], new)
    for _ in range(2):  # the answer was lost: it is sent again
        found = decide(candidate_id=IDS[0], verdict="", at="2026-01-01T00:00:00Z", mask_digest=new.digest)
        assert found["item"]["mask_digest"] == first and found["mine"] is None
    decide(candidate_id=IDS[0], verdict="discard", mask_digest=first)
    assert "item" not in decide(candidate_id=IDS[0], verdict="", mask_digest=first)


def test_only_what_is_no_decision_is_refused(root, plugin, monkeypatch):
    decide = operator(plugin, Session(root, "ann"), monkeypatch)
    for bad in (
        {"candidate_id": "no/such#1", "verdict": "discard"},
        {"candidate_id": IDS[0], "verdict": "keep"},
        {"candidate_id": IDS[0], "verdict": "discard", "reason": "ugly"},
        {"candidate_id": IDS[0], "verdict": "discard", "mask_digest": "mine"},
        {"candidate_id": IDS[0], "verdict": "discard", "seconds": "long"},
        {"verdict": "discard"},
    ):
        assert set(decide(**bad)) == {"refused"}
    path_of(root, "ann").mkdir(parents=True)  # the log cannot be written: the panel must keep the decision
    with pytest.raises(OSError):
        decide(candidate_id=IDS[0], verdict="discard")
