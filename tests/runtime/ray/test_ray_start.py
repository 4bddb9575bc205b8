"""How a cluster is joined or started, and what is said when that fails or is broken off."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime import ray_start
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine
from ahp_toolkit.runtime.engines import Work
from tests.cli.small import ENV, data, start, words

HERE = ENV | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder of a short name, as Ray's sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="ahp-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def terminate(child: subprocess.Popen[str], when: Callable[[], bool]) -> None:
    """SIGTERM when it is time."""
    end = time.monotonic() + 300
    while not when():
        assert child.poll() is None and time.monotonic() < end, child.stderr.read()
        time.sleep(0.05)
    child.terminate()
    ended(child)


def ended(child: subprocess.Popen[str]) -> None:
    """By SIGTERM: 143 and one line."""
    _, err = child.communicate(timeout=120)
    assert child.returncode == 143 and err.strip() == "ahp: terminated; the same command goes on from here", err


@pytest.mark.parametrize("begun", ["ahp-ray-*", "ahp-ray-*/session_*/sockets/raylet*"])
def test_sigterm_while_ray_starts_ends_the_command_in_one_line(begun, short, tmp_path):
    """Before Ray's first process, and when its last one stands and the command is about to join."""
    build = words(data(tmp_path / "coco", 4), tmp_path / "out", "-q", "--engine", "ray")
    terminate(start(*build, env=HERE | {"TMPDIR": str(short)}), lambda: any(short.glob(begun)))
    assert not list(short.glob("ahp-ray-*"))


def test_sigterm_that_is_lost_while_ray_starts_comes_again():
    """As it is in a fork: Python drops there what Ray's handler raises."""
    before = """
from ahp_toolkit.runtime.ray_start import own_signals
def ahp(**_):
    with own_signals():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            pass
    print("not ended")
cli.ahp = ahp
"""
    ended(start(before=before, env=HERE))


def test_sigterm_ends_a_command_on_its_own_cluster_in_one_line(tmp_path):
    before = f"""
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine
from ahp_toolkit.runtime.engines import Work
from tests.cli.small import nap
def ahp(**_):
    with make_engine(EngineSettings(1, "ray")) as engine:
        list(engine.imap(Work("nap", nap), [(k, {str(tmp_path)!r}) for k in range(4)]))
cli.ahp = ahp
"""
    child = start(before=before, env=HERE)
    terminate(child, (tmp_path / "0").exists)


def refusal(address: str) -> str:
    with make_engine(EngineSettings(1, "ray", address)) as engine, pytest.raises(UserError) as said:
        list(engine.imap(Work("abs", abs), enumerate(range(2))))
    return str(said.value)


@pytest.fixture
def unasked(monkeypatch):
    """Ray itself is not asked: it would knock for minutes."""
    monkeypatch.setattr(ray_start, "_init", lambda *_: pytest.fail("Ray was asked"))


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_told_without_ray(scheme):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = refusal(f"{scheme}127.0.0.1:{port}")
    assert said.startswith(f"cannot join the Ray cluster at {scheme}127.0.0.1:{port} (ConnectionRefusedError")
    assert "expected auto, or HOST:PORT" in said and "ray start --head" in said


class _Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("unasked")
def test_a_web_server_is_told_from_a_cluster():
    """As the dashboard's port, given by mistake."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Page) as page:
        threading.Thread(target=page.handle_request).start()
        said = refusal(f"127.0.0.1:{page.server_port}")
    assert "(ConnectionError: what listens there is no Ray cluster)" in said and "ray start --head" in said


@pytest.mark.usefixtures("unasked")
def test_a_port_that_never_answers_is_told(monkeypatch):
    monkeypatch.setattr(ray_start, "REACH", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "(TimeoutError: timed out)" in refusal(f"127.0.0.1:{mute.getsockname()[1]}")


@pytest.mark.usefixtures("unasked")
def test_a_host_that_cannot_be_is_told_without_ray(monkeypatch):
    assert "at nowhere.invalid:6379 (gaierror" in refusal("nowhere.invalid:6379")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    assert "at nowhere.invalid:1 (gaierror" in refusal("auto")


def test_an_address_that_is_none_is_told():
    assert "at nonsense (ValueError" in refusal("nonsense")


def test_auto_without_a_cluster_is_told(tmp_path, monkeypatch):
    from ray._private import services

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set))  # this machine's others may run one
    assert "at auto (ConnectionError: Could not find any running Ray instance" in refusal("auto")
