"""A real MongoDB, real App servers and real browsers for the tests of the review: started here, ended here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
LAUNCH = "from annotation.commands import review; review()"
FLAGS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]


def find_mongod() -> str | None:
    """FiftyOne's own mongod, else the system's."""
    import importlib.util

    spec = importlib.util.find_spec("fiftyone")
    own = [Path(p) / "db" / "bin" / "mongod" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((str(p) for p in own if p.exists()), shutil.which("mongod"))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(what: Callable[[], Any], limit: float = 90.0, pause: float = 0.1) -> Any:
    """The first true answer of ``what``; fails after ``limit`` s."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(pause)
    raise TimeoutError(f"nothing within {limit} s")


def _listens(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Mongo:
    """A database of our own that can be killed and started again on the same port and files."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> Mongo:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(find_mongod()), "--dbpath", str(self.folder), "--port", str(self.port), "--nounixsocket"]
        command += ["--bind_ip", "127.0.0.1", "--logpath", str(self.folder / "log"), "--wiredTigerCacheSizeGB", "0.25"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._ready)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        return _listens(self.port)

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def environment(mongo: Mongo, name: str) -> dict[str, str]:
    return os.environ | {
        "FIFTYONE_DATABASE_URI": mongo.uri,
        "FIFTYONE_DATABASE_NAME": name,
        "FIFTYONE_DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


@dataclass
class Server:
    """One reviewer's `ahp review`."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        line = next(x for x in self.log.read_text().splitlines() if " reviews " in x)
        return line.split(" at ")[1].split(" (")[0]

    def ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-2000:])
        return " reviews " in self.log.read_text()


def start_server(root: Path, reviewer: str, env: dict[str, str]) -> Server:
    port, log = free_port(), root / f"{reviewer}.log"
    args = ["--root", str(root), "--reviewer", reviewer, "--port", str(port), "--no-browser"]
    with log.open("w") as f:
        process = subprocess.Popen([sys.executable, "-c", LAUNCH, *args], stdout=f, stderr=f, env=env, text=True)
    return Server(process, port, log)


@contextmanager
def serving(root: Path, reviewers: list[str], env: dict[str, str]) -> Iterator[list[Server]]:
    """Servers of several reviewers on one database, all started at once; they take turns to prepare the dataset."""
    servers = [start_server(root, r, env) for r in reviewers]
    try:
        for s in servers:
            wait_for(s.ready, 500)  # one that has died is noticed at once
        yield servers
    finally:
        for s in servers:
            s.process.send_signal(signal.SIGINT)
        for s in servers:
            try:
                s.process.wait(20)
            except subprocess.TimeoutExpired:
                s.process.kill()


@contextmanager
def browsers(urls: list[str], reload: bool = False) -> Iterator[list[Panel]]:
    """One browser profile a URL, each with the review panel on its first candidate.

    ``reload``: as a person does when FiftyOne's page comes up with an error, once, after the database was away.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p, ExitStack() as stack:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stack.callback(chromium.close)
        panels = [Panel(chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()) for _ in urls]
        for panel, url in zip(panels, urls, strict=True):
            panel.page.goto(url)
        for panel in panels:
            try:
                panel.wait()
            except AssertionError:
                if not reload:
                    raise
                panel.page.reload()
                panel.wait()
        yield panels


@dataclass
class Panel:
    """The review panel in a browser, worked by keyboard."""

    page: Any

    def wait(self) -> str:
        try:
            self.page.wait_for_selector('[data-cy="ahp-canvas"][data-id]:not([data-id=""])', timeout=300_000)
        except Exception as e:
            text = self.page.evaluate("document.body.innerText")
            raise AssertionError(f"no candidate is shown; the page holds: {text[:2000]!r}") from e
        return self.shown

    @property
    def shown(self) -> str:
        return str(self.page.evaluate("document.querySelector('[data-cy=ahp-canvas]').dataset.id"))

    def press(self, key: str) -> str:
        """Press a key that changes the candidate; returns the id that is shown afterwards ('': none is left)."""
        before = self.shown
        self.page.keyboard.press(key)
        self.page.wait_for_function(
            """before => { const c = document.querySelector('[data-cy=ahp-canvas]');
                return c.dataset.id !== before
                    && (c.dataset.id || document.body.innerText.includes('Nothing is left')) }""",
            arg=before,
            polling=5,
            timeout=300_000,
        )
        return self.shown

    def saved(self) -> None:
        """Wait until the server has confirmed everything."""
        self.page.wait_for_selector('[data-cy="ahp-save"][data-state="saved"]', timeout=300_000)
