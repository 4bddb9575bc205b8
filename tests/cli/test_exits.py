"""How commands end, as a shell sees it: statuses, one line on stderr, and what a stopped build leaves behind."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from ahp_toolkit.runtime import signals
from tests.cli.small import NAP, ahp, data, events, start, words

#: A harvest whose third photo takes for ever, in the middle of the build; the mark says that it has come to that.
SLOW = """
import time, pathlib
from ahp_toolkit.stages import harvest
whole = harvest.Harvest.__call__
def slow(self, items):
    out = whole(self, items)
    pathlib.Path({mark!r}).touch()
    time.sleep(60)
    return out
harvest.Harvest.__call__ = slow
"""
BROKEN = """
from ahp_toolkit.cli import doctor
def examine():
    raise RuntimeError('no such gear')
doctor.examine = examine
"""


def test_a_users_error_is_one_line_and_status_2(tmp_path):
    (tmp_path / "coco").mkdir()
    out = ahp("build", "--source", f"coco={tmp_path / 'coco'}", "--out", tmp_path / "o")
    assert out.returncode == signals.USER == 2 and not out.stdout
    assert re.fullmatch(r"ahp: .*expected a COCO folder.*\n", out.stderr)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--no-such-option",), "No such option '--no-such-option'; see ahp --help"),
        (("nothing",), "No such command 'nothing'; see ahp --help"),
        (("build", "--nope"), r"No such option '--nope'. Did you mean '--no-flip'\? See ahp build --help"),
        (("build", "--workers", "x"), "Invalid value for '--workers': 'x' is not .*; see ahp build --help"),
        (("bench", "score"), "Missing argument 'PREDICTIONS...'; see ahp bench score --help"),
        (("review", "status"), "Missing option '--root'; see ahp review status --help"),
    ],
)
def test_a_mistyped_command_is_one_line_that_says_where_to_look(args, said):
    out = ahp(*args)
    assert out.returncode == 2 and not out.stdout
    assert re.fullmatch(f"ahp: {said}\n", out.stderr), out.stderr


def test_a_group_without_a_command_shows_its_help():
    out = ahp("bench")
    assert out.returncode == 2 and out.stderr.startswith("Usage: ahp bench") and "  score " in out.stderr


@pytest.mark.parametrize(
    ("sent", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_build_says_how_to_go_on_and_goes_on(tmp_path, sent, status, said):
    source, out, mark = data(tmp_path / "coco"), tmp_path / "o", tmp_path / "there"
    log = tmp_path / "log.jsonl"
    args = words(source, out, "--stop-after", "harvest")
    child = start("--log-json", log, *args, before=SLOW.format(mark=str(mark)))
    _wait_for(mark)
    child.send_signal(sent)
    _, err = child.communicate(timeout=60)
    assert child.returncode == status
    assert err.splitlines()[-1] == f"ahp: {said}; the same command goes on from here"
    assert "Traceback" not in err
    assert [e["event"] for e in events(log)][-2:] == ["error", "run_end"]
    assert events(log)[-1]["status"] == status
    assert not (out / "harvest").exists()
    again = ahp(*args)
    assert again.returncode == 0 and (out / "harvest" / "stage.json").exists(), again.stderr


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_workers_end_with_the_command_without_a_word(tmp_path, sent, status):
    """Ctrl+C reaches the whole group, SIGTERM the command alone; shards that would take a minute hold up neither."""
    before = f"""
from ahp_toolkit.runtime.engines import LocalEngine, Work
from tests.cli.small import nap
def ahp(**_):
    with LocalEngine(2) as engine:
        list(engine.imap(Work("nap", nap), [(k, {str(tmp_path)!r}) for k in range(4)]))
cli.ahp = ahp
"""
    child = start(before=before, start_new_session=True)
    _wait_for(tmp_path / "0")
    begun = time.monotonic()
    if sent == signal.SIGINT:
        os.killpg(child.pid, sent)
    else:
        child.send_signal(sent)
    _, err = child.communicate(timeout=120)
    assert child.returncode == status
    assert time.monotonic() - begun < NAP / 2
    assert len(err.splitlines()) == 1, err


def _wait_for(mark: Path) -> None:
    end = time.monotonic() + 120
    while not mark.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_our_own_fault_is_one_line_that_asks_for_a_report_and_keeps_the_traceback(tmp_path):
    log = tmp_path / "log.jsonl"
    out = ahp("--log-json", log, "doctor", before=BROKEN)
    assert out.returncode == signals.INTERNAL == 1
    (line,) = out.stderr.splitlines()
    assert line.startswith("ahp: internal error: RuntimeError: no such gear") and "please report" in line
    error = next(e for e in events(log) if e["event"] == "error")
    assert error["kind"] == "internal" and "in examine" in error["traceback"]
    assert "in examine" in ahp("doctor", before=BROKEN, AHP_DEBUG="1").stderr


def test_a_full_disk_is_no_fault_of_ours():
    full = BROKEN.replace("RuntimeError('no such gear')", "OSError(28, 'No space left on device', '/disk/x')")
    out = ahp("doctor", before=full)
    assert out.returncode == 2
    assert out.stderr == "ahp: /disk/x: No space left on device; free some space, then run the same command again\n"


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_path_too_long_for_the_system_is_no_fault_of_ours(name):
    run = ahp("build", "export", "--root", name, "--format", "cocoa")
    assert run.returncode == 2 and "File name too long; give a shorter path" in run.stderr
    assert len(run.stderr.splitlines()) == 1 and len(run.stderr) < 500


@pytest.mark.parametrize("args", [
    ("build", "--source", "coco=SOURCE", "--review", "provisional", "--workers", 1, "--out", "FILE/x"),
    ("build", "--source", "coco=SOURCE", "--review", "provisional", "--workers", 1, "--out", "/dev/null"),
    ("demo", "--out", "FILE/x"),
], ids=["build below a file", "build at a device", "demo below a file"])  # fmt: skip
def test_a_file_where_a_folder_is_needed_is_no_fault_of_ours(tmp_path, args):
    source, file = data(tmp_path / "coco", 4), tmp_path / "afile"
    file.touch()
    run = ahp(*(str(a).replace("SOURCE", str(source)).replace("FILE", str(file)) for a in args))
    assert run.returncode == signals.USER, run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"ahp: {'/dev/null' if '/dev/null' in args else file}") and "give another path" in last
    assert "internal error" not in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("e", [
    NotADirectoryError(20, "Not a directory", "a/x"), FileExistsError(17, "File exists", "a"),
    IsADirectoryError(21, "Is a directory", "a"),
], ids=lambda e: type(e).__name__)  # fmt: skip
def test_what_stands_at_the_path_is_told_as_the_users(e, capsys):
    assert signals.failed(e) == signals.USER
    said = capsys.readouterr().err
    assert said.startswith(f"ahp: {e.filename}: {e.strerror}; ") and len(said.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error():
    child = start("doctor", before="import os, sys\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(w)\nos.close(r)")
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0 and not err, err


def test_statuses_are_documented_in_help():
    said = ahp("--help").stdout
    for status in signals.STATUSES:
        assert re.search(rf"^\s+{status}\s", said, re.MULTILINE), status


def test_the_version_is_written_once():
    import tomllib

    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert ahp("--version").stdout == f"ahp, version {pyproject['project']['version']}\n"
