"""One writer a root in an object store: a lease with the owner's name and time, renewed while he lives.

Leases are numbered objects below ``.ahp/``; the highest number counts. A number is taken by creating its object, which
stores do for one asker only. A dead owner's lease is taken over: at once when he ran on this machine, else when he has
given no sign for `LIVES_S` seconds (by this machine's clock against the store's).
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import remote

FOLDER = ".ahp"
LIVES_S, RENEW_S = 120.0, 20.0
_NAME = re.compile(r"lease-(\d{8})\.json")


@dataclass(frozen=True)
class Held:
    """What a lease says: its number, who took it from which working folder, and how long ago he gave a sign (s)."""

    number: int
    said: dict[str, Any]
    age: float

    @property
    def work(self) -> str:
        """The id of the owner's working folder."""
        return str(self.said.get("work", ""))

    @property
    def over(self) -> bool:
        """Whether it has been given back, or its owner is dead."""
        if self.said.get("released"):
            return True
        if self.said.get("machine") == _machine():
            return not _lives(self.said.get("pid"), self.said.get("started"))
        return self.age > LIVES_S

    @property
    def owner(self) -> str:
        """Who, in words."""
        s = self.said
        return f"process {s.get('pid')} of {s.get('user')} on {s.get('host')} since {s.get('since')}"


def newest(root: str) -> Held | None:
    """The lease that counts at an address; None where nobody has ever written there."""
    found = [
        (int(m[1]), s) for s in remote.listing(f"{root}/{FOLDER}") if (m := _NAME.fullmatch(s.address.split("/")[-1]))
    ]
    if not found:
        return None
    number, stored = max(found, key=lambda f: f[0])
    try:
        said = json.loads(remote.read(stored.address))
    except FileNotFoundError:  # its owner's successor took it away this moment
        return newest(root)
    except ValueError:
        said = {}
    return Held(number, said if isinstance(said, dict) else {}, time.time() - stored.modified)


class Lease:
    """A lease of ours; `renew` it every `RENEW_S` seconds, `release` it at the end."""

    def __init__(self, root: str, number: int, work: str) -> None:
        self.root, self.number = root, number
        self._signed = float("-inf")
        pid = os.getpid()
        self._said = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": pid,
            "released": False,
            "since": _now(),
            "started": _started(pid),
            "token": uuid.uuid4().hex,
            "user": _user(),
            "work": work,
        }

    @property
    def address(self) -> str:
        """Where the lease lies."""
        return f"{self.root}/{FOLDER}/lease-{self.number:08d}.json"

    def _write(self, new: bool = False) -> None:
        self._said["seen"] = _now()
        begun = _awake()
        remote.write(self.address, json.dumps(self._said, sort_keys=True).encode(), new)
        self._signed = begun

    def guard(self) -> None:
        """Renew it when the last sign is old (a suspended machine, a store that stalled): before each write.

        Raises:
            UserError: when somebody has taken the root over meanwhile.
        """
        if _awake() - self._signed > LIVES_S / 2:
            self.renew()

    def take(self) -> None:
        """Create the object.

        Raises:
            UserError: when somebody else was quicker.
        """
        try:
            self._write(new=True)
        except FileExistsError as e:
            held = newest(self.root)  # ours, where the answer to the first try was lost
            if held is None or held.said.get("token") != self._said["token"]:
                raise UserError(f"{self.root}: {held.owner if held else 'somebody'} has just taken it; wait") from e

    def renew(self) -> None:
        """Give a sign of life.

        Raises:
            UserError: when somebody has taken the root over meanwhile.
        """
        held = newest(self.root)
        if held is None or held.said.get("token") != self._said["token"]:
            owner = held.owner if held else "somebody"
            raise UserError(
                f"{self.root}: {owner} has taken it over, since this process gave no sign for {LIVES_S:.0f} s"
            )
        self._write()

    def release(self) -> None:
        """Give it back."""
        if not self._said["released"]:
            self._said["released"] = True
            self._write()

    def withdraw(self) -> None:
        """Leave no trace of it."""
        self._said["released"] = True
        remote.delete([self.address])


def acquire(root: str, work: str) -> tuple[Lease, Held | None]:
    """Take the root at an address for the working folder of id ``work``; also gives what held before.

    Raises:
        UserError: when a living process holds it, with its name.
    """
    held = newest(root)
    if held is not None and not held.over:
        raise UserError(
            f"{root}: in use by {held.owner}; wait for it, or build to another address "
            f"(a dead owner's lease ends {LIVES_S:.0f} s after its last sign)"
        )
    lease = Lease(root, held.number + 1 if held else 1, work)
    lease.take()
    old = [s.address for s in remote.listing(f"{root}/{FOLDER}") if s.address < lease.address]
    remote.delete([a for a in old if _NAME.fullmatch(a.split("/")[-1])])
    return lease, held


def _awake() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _machine() -> str:
    """This machine since its start, as far as its process numbers reach."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {_read('/proc/sys/kernel/random/boot_id').strip()} {space}"


def _started(pid: int) -> str:
    """When a process began, in ticks; '' where there is none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _lives(pid: Any, started: Any) -> bool:
    return isinstance(pid, int) and bool(_started(pid)) and _started(pid) == started
