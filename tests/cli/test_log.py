"""The structured log and the progress line: whole lines, one JSON object each, secrets none, nothing in the way."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime import logging
from ahp_toolkit.runtime.progress import Progress, draws
from tests.cli.small import ENV, ahp, data, events, words

FIELDS = {
    "run_start": {"version", "pid", "argv"},
    "stage_start": {"stage", "unit", "total"},
    "stage_progress": {"stage", "done", "total", "seconds", "left"},
    "stage_end": {"stage", "done", "total", "seconds", "ok"},
    "stage_result": {"stage", "counts", "dropped", "fresh", "seconds", "digest"},
    "message": {"message"},
    "output": {"message"},
    "warning": {"message", "source"},
    "run_end": {"status", "seconds"},
}


def check(found: list[dict]) -> None:
    """Every line has what the module says it has."""
    for e in found:
        assert datetime.fromisoformat(e["time"]).tzinfo is not None and e["level"] in ("info", "warning", "error")
        assert set(e) - {"time", "level", "event"} == FIELDS[e["event"]], e
    assert found[0]["event"] == "run_start" and found[-1]["event"] == "run_end"


def test_a_build_is_logged_stage_by_stage(tmp_path):
    path, args = tmp_path / "run.jsonl", words(data(tmp_path / "coco"), tmp_path / "o", "--stop-after", "review")
    first = ahp("--log-json", path, *args)
    assert first.returncode == 0, first.stderr
    found = events(path)
    check(found)
    results = [e for e in found if e["event"] == "stage_result"]
    assert {"harvest", "segment", "parse", "review"} <= {e["stage"] for e in results}
    assert all(e["fresh"] and e["seconds"] > 0 for e in results)
    harvest = next(e for e in results if e["stage"] == "harvest" and "in" in e["counts"])
    assert harvest["counts"]["images/coco"] == 12
    starts = [e["stage"] for e in found if e["event"] == "stage_start"]
    assert starts == [e["stage"] for e in found if e["event"] == "stage_end"]
    assert any("candidates" in e["message"] for e in found if e["event"] == "message")
    ahp("--log-json", path, *args)
    again = events(path)[len(found) :]
    check(again)
    assert not any(e["fresh"] for e in again if e["event"] == "stage_result")
    made = json.loads((tmp_path / "o" / "segment" / "timing.json").read_text())
    assert made["items"] > 0 and made["worker_seconds"] > 0 and made["machine"]


def test_the_log_on_stdout_is_nothing_but_the_log():
    out = ahp("--log-json", "-", "doctor")
    found = [json.loads(line) for line in out.stdout.splitlines()]
    assert found[0]["event"] == "run_start" and found[-1] == found[-1] | {"event": "run_end", "status": out.returncode}
    assert any("python" in e["message"] for e in found if e["event"] == "output")


def test_bench_and_review_are_logged_too(tmp_path):
    for args in (("bench", "report", "--boards", tmp_path), ("review", "status", "--root", tmp_path)):
        path = tmp_path / f"{args[0]}.jsonl"
        out = ahp("--log-json", path, *args)
        found = events(path)
        assert found[-1]["event"] == "run_end" and found[-1]["status"] == out.returncode
        assert found[0]["argv"][2:] == [str(a) for a in args]


def test_no_secret_reaches_the_log():
    said = logging.redacted(
        {
            "argv": ["s3://key:pass@host/b", "--set", "api_key=abc123", "https://h/x?X-Amz-Signature=ff00&a=1"],
            "n": [1, None, {"text": "AWS_SECRET_ACCESS_KEY=wJalr/x token: hush; rest"}],
        }
    )
    text = json.dumps(said)
    assert not re.search("pass@|abc123|ff00|wJalr|hush", text)
    assert "s3://***@host/b" in text and "a=1" in text and "rest" in text


@pytest.mark.parametrize("text", [
    "password='HUSH HUSH' & more", '{"password": "HUSH", "b": "more"}', r'{\"password\": \"HUSH\", \"b\": \"more\"}',
    'AWS_SECRET_ACCESS_KEY="HUSH" more', "AccountKey=HUSH==;more", "https://x.blob/c?sv=1&sig=HUSH&more",
    "private_key=HUSH, more", "https://user:HU@SH@host/more", "https://user:x@HUSH@host/a@more",
    "secret_key: HUSH more", "Authorization: Bearer HUSH\nmore", 'password="HU\\"SH" more', "password=x\\HUSH more",
    "password: 'HUSH;HUSH' more",
])  # fmt: skip
def test_secrets_are_found_in_quotes_and_addresses(text):
    said = logging.redacted(text)
    assert "HU" not in said and "SH" not in said and "***" in said and "more" in said, said


@pytest.mark.parametrize("name", ["password", "AWS_SECRET_ACCESS_KEY", "AccountKey", "sig", "private_key", "api-key"])
def test_what_a_dict_keeps_under_a_secrets_name_is_not_logged(name):
    assert logging.redacted({"a": [{name: "x y"}]}) == {"a": [{name: "***"}]}
    assert logging.redacted({name: ["x"]}) == {name: "***"} and logging.redacted({name: {"a": "x"}}) == {name: "***"}


@pytest.mark.parametrize("text", [
    "https://host:80/a@b", "design=5 resign: no", "key=stage", "tokens: 7 of 9", "monkey: a", "a@b: c",
])  # fmt: skip
def test_what_is_no_secret_is_logged_as_it_is(text):
    assert logging.redacted(text) == text
    assert logging.redacted({"key": text, "design": "x", "token": 5}) == {"key": text, "design": "x", "token": 5}


@pytest.mark.parametrize(
    "part", ["secret", "token ", "a://b", "sig='", 'password="', "password=\\", " ", "access_key_"]
)
def test_redaction_reads_a_long_text_once(part):
    """Backtracking would take hours here."""
    text = part * (300_000 // len(part))
    assert len(logging.redacted(text)) <= len(text) * 2
    assert logging.redacted(f"password={part * 50_000}").startswith("password=")


def test_a_log_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        logging.open_log(str(tmp_path / "no" / "log.jsonl"), "0")


BAR = """
import time
from ahp_toolkit.runtime import progress
progress.Progress.EVERY_S = 0.15
with progress.Progress("making", 6, "thing") as bar:
    bar.skip(1)
    for _ in range(5):
        time.sleep(0.1)
        bar.update()
    bar._start -= 2
"""


def test_redirected_progress_is_whole_lines_without_control_characters():
    out = subprocess.run([sys.executable, "-c", BAR], stderr=subprocess.PIPE, env=ENV, check=True).stderr.decode()
    lines = out.splitlines()
    assert len(lines) >= 3 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)
    assert all(re.fullmatch(r"making: [1-6]/6 thing, \d+ s(, \d+ s left)?", line) for line in lines), lines
    assert " s left" in lines[0] and lines[-1].startswith("making: 6/6 thing") and "left" not in lines[-1]


def test_progress_through_tee_is_whole_lines(tmp_path):
    script = f"'{sys.executable}' -c '{BAR}' 2>&1 | tee '{tmp_path}/log'"
    subprocess.run(["bash", "-c", script.replace('"', '"')], env=ENV, check=True, capture_output=True)
    out = (tmp_path / "log").read_text()
    assert out.endswith("\n") and "\r" not in out and "making: 6/6 thing" in out


@pytest.mark.parametrize(("term", "drawn"), [("dumb", False), ("xterm", True)])
def test_a_dumb_terminal_gets_lines_and_another_a_bar(term, drawn):
    main, other = pty.openpty()
    subprocess.run([sys.executable, "-c", BAR], stderr=other, env=ENV | {"TERM": term}, check=True)
    os.close(other)
    shown = b""
    while True:
        try:
            some = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        shown += some
        if not some:
            break
    os.close(main)
    plain = shown.replace(b"\r\n", b"\n")
    assert (b"\r" in plain) == drawn
    assert b"making" in plain


def test_a_stopped_bar_says_so(capsys):
    with pytest.raises(KeyError), Progress("x", 3) as bar:
        bar._start -= 3
        raise KeyError
    assert capsys.readouterr().err == "x: 0/3 it, 3 s (stopped)\n"
    assert not draws(object())


def test_every_event_is_in_the_modules_table():
    root = Path(__file__).parents[2]
    code = "".join(p.read_text() for p in (root / "ahp_toolkit").rglob("*.py"))
    made = set(re.findall(r"(?:\blog\.event|\bevent)\(\s*\"(\w+)\"", code))
    assert {"run_start", "damaged", "replaced"} <= made
    assert not {e for e in made if not re.search(rf"^(\w+, )?{e}\b", logging.__doc__ or "", re.M)}
