"""What listens, where; what a build folder from somebody else, or another user of the machine, can slip in."""

from __future__ import annotations

import inspect
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from annotation import commands
from annotation.app import bench_app, server


def test_the_app_listens_on_the_loopback_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = (p for p in commands.review.params if p.name == "address")
    assert address.default == "127.0.0.1"
    for start in (server.launch, bench_app.launch):
        assert inspect.signature(start).parameters["address"].default == "127.0.0.1"


def test_a_port_is_probed_on_the_address_asked_for_alone() -> None:
    port = server.free_port("127.0.0.1", None)
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
        with pytest.raises(UserError, match="--port"):
            server.free_port("127.0.0.1", port)
        with socket.socket() as other, pytest.raises(OSError):  # nobody answers on the machine's other addresses
            other.settimeout(2)
            other.connect(("127.0.0.2", port))


def test_the_server_process_is_started_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Service:
        def __init__(self, port: int, address: str, **options: object) -> None:
            asked.append((port, address))

    service = SimpleNamespace(ServerService=Service)
    session = SimpleNamespace(session=SimpleNamespace(_server_services={}))
    monkeypatch.setitem(sys.modules, "fiftyone.core.service", service)  # fiftyone itself takes long to import
    monkeypatch.setitem(sys.modules, "fiftyone.core.session", session)
    for package in ("fiftyone", "fiftyone.core"):
        monkeypatch.setitem(sys.modules, package, SimpleNamespace())
    server.start_server(5151, "127.0.0.1")
    assert asked == [(5151, "127.0.0.1")]


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.4", False), ("my.host", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False)],
)  # fmt: skip
def test_an_address_that_others_reach_is_told(address: str, loopback: bool) -> None:
    assert commands._loopback(address) is loopback


def test_the_review_says_so_when_others_can_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*a: object, **k: object) -> None:
        raise UserError("stopped here")

    monkeypatch.setattr(server, "serving", refuse)
    monkeypatch.setattr(commands, "check_build", lambda root: None)
    monkeypatch.setattr(commands, "_hint", lambda *a: None)
    for address, said in (("0.0.0.0", True), ("127.0.0.1", False)):
        done = CliRunner().invoke(commands.review, ["--root", str(tmp_path), "--address", address, "--reviewer", "ann"])
        assert ("whoever reaches this port" in done.output) is said, done.output


def test_a_build_folders_own_plugins_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build folder from somebody else may bring .review/plugins: FiftyOne would import whatever lies there."""
    root = tmp_path / "build"
    evil = root / ".review" / "plugins" / "evil"
    evil.mkdir(parents=True)
    (evil / "fiftyone.yml").write_text("name: evil\n")
    monkeypatch.delenv("FIFTYONE_PLUGINS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server.set_environment(root)
    folder = Path(os.environ["FIFTYONE_PLUGINS_DIR"])
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(folder))  # taken back after the test
    assert not folder.is_relative_to(root) and folder.stat().st_mode & 0o077 == 0
    server.install_plugin()
    assert [p.parent.name for p in folder.rglob("fiftyone.yml")] == ["ahp_review"]


def test_a_plugin_folder_that_others_may_write_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.plugins_folder().chmod(0o777)
    with pytest.raises(UserError, match="others may write"):
        server.plugins_folder()
