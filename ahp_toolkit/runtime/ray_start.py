"""How a Ray cluster is joined or started, and how nothing of one's own is left when it ends."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.engines import ONE_THREAD, environment

_QUIET = dict.fromkeys(("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"), "0") | {
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of several workers that say the same, one is heard
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it takes SIGTERM for a fault: a stack of C++, and death by it
}
#: Of the half minutes that Ray waits for what listens at an address and is no cluster: twenty, left to itself.
_JOINING = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
#: Seconds for an address to take a connection, and to answer.
REACH = 5.0
#: What opens a conversation of HTTP/2, as gRPC has it: RFC 9113, 3.4, with an empty SETTINGS frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
#: On a busy machine a raylet that waits for workers which it started in advance, and gave up, never answers.
PATIENT = {"RAY_prestart_worker_first_driver": "0", "RAY_worker_register_timeout_seconds": "600"}
_LONGEST = 40  # characters of the temporary folder: Ray's sockets lie 65 below it, and the kernel takes 107
_MIB = 2**20


def joined(closing: ExitStack, address: str | None, workers: int | None) -> Any:
    """Ray itself, initialised; ``closing`` undoes what was done for it."""
    try:
        if address:
            _reach(address)
        closing.enter_context(environment(_QUIET | (_JOINING if address else _private())))
        ray = importlib.import_module("ray")  # after the environment: Ray reads it when it is imported
        if not ray.is_initialized():
            _init(ray, closing, address, workers)
    except Exception as e:  # Ray's start raises whatever it comes upon, a bare Exception too
        closing.close()
        if isinstance(e, UserError):
            raise
        if address:
            raise UserError(
                f"cannot join the Ray cluster at {address} ({line(e)}); expected auto, or HOST:PORT of one that runs "
                "with this version of Ray and this token: ray start --head --include-dashboard=false"
            ) from e
        raise UserError(f"cannot start a Ray cluster ({line(e)}); is there room for one on this machine?") from e
    return ray


def _reach(address: str) -> None:
    """Knock at ``HOST:PORT`` or ``ray://HOST:PORT``: Ray would knock for minutes. Other addresses are its own affair.

    Raises:
        OSError: when nobody opens, or what opens does not speak gRPC, as the dashboard's port does not.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return
    with socket.create_connection((host.strip("[]"), int(port)), REACH) as there:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):  # it says nothing before a handshake
            return
        there.sendall(_HELLO)
        if there.recv(4)[3:] != b"\4":  # the type of a SETTINGS frame, which a server sends first
            raise ConnectionError("what listens there is no Ray cluster")


def _private() -> dict[str, str]:
    """The environment of a cluster of one's own: loopback only, closed to the machine's other users, one thread."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} | token | PATIENT | ONE_THREAD


def _init(ray: Any, closing: ExitStack, address: str | None, workers: int | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        temp = tempfile.mkdtemp(prefix="ahp-ray-")
        closing.callback(_sweep, os.path.realpath(temp))
        if len(temp) > _LONGEST:
            raise UserError(f"{temp}: too long for Ray's sockets; set TMPDIR to a shorter path")
        cpus = workers or os.cpu_count() or 1
        settings |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": temp}
        settings["object_store_memory"] = min(2048, max(128, 32 * cpus)) * _MIB
    closing.callback(ray.shutdown)
    for left in range(0 if address else 2, -1, -1):
        try:
            with own_signals():
                ray.init(address=address or "local", **settings)
            return
        except Exception:  # a bare one where the raylet was not there within half a minute, as on a busy machine
            if not left:
                raise
            ray.shutdown()


def _sweep(temp: str) -> None:
    """End what Ray left running, and remove the folder that it writes to.

    An agent whose raylet was killed while it started lives on for a quarter of a minute and writes its files again.
    """
    psutil = importlib.import_module("psutil")

    def ours(process: Any) -> bool:
        try:
            return process.pid != os.getpid() and any(file.path.startswith(temp) for file in process.open_files())
        except (psutil.Error, OSError):  # another user's, or gone
            return False

    for _ in range(5):  # what was found last may have started another
        left = [process for process in psutil.process_iter() if ours(process)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=REACH)
        if not left:
            break
    shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Let signals do what they did before `ray.init`, which sets a handler of its own: SIGTERM says sys.exit(15).

    What a handler raises in the middle of a fork is lost besides, and Ray forks much. The wakeup descriptor sees every
    signal, so those that end a command are sent again here.
    """
    if threading.current_thread() is not threading.main_thread():  # Ray leaves signals alone, and we may not touch them
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    seen, write = os.pipe()
    os.set_blocking(write, False)
    before, hook = signal.set_wakeup_fd(write, warn_on_full_buffer=False), sys.unraisablehook
    sys.unraisablehook = lambda _: None  # it would print what is lost
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(before)
        if handler is not None:  # None: not Python's
            signal.signal(signal.SIGTERM, handler)
        os.close(write)
        with os.fdopen(seen, "rb") as pipe:
            came = pipe.read()
        for number in (signal.SIGTERM, signal.SIGINT):
            if number in came:
                signal.raise_signal(number)


def line(e: Exception) -> str:
    """An error's name and first line."""
    first = (str(e).splitlines() or [""])[0].strip()[:100]
    return f"{type(e).__name__}: {first}"
