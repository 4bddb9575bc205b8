"""Object stores by address (``s3://``, ``gs://``, ``az://``, through fsspec): the few requests that are made of them.

Every request is tried again after throttling, server errors and lost connections, with waits that double and are spread
by chance; what does not pass is one `StorageError` that names the address. Nothing is listed or read from a cache.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import itertools
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from ahp_toolkit.core.errors import StorageError, UserError, require

T = TypeVar("T")
#: Scheme -> the package that speaks it.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 9, 0.1, 15.0
#: Files up to this size go up in one request, and have their MD5 as tag; larger ones in parts.
ONE_REQUEST = 256 * 2**20
BLOCK = 16 * 2**20
_OPTIONS: dict[str, dict[str, Any]] = {
    # one request a call, tried once: the waiting is done here
    "s3": {
        "max_concurrency": 1,
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 15, "read_timeout": 60},
    },
}
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
#: Errors of the clients that are no OSError and pass: of the connection, of the transfer.
_PASSING = {"HTTPClientError", "ConnectionError", "ClientPayloadError", "ClientConnectionError", "IncompleteRead"}
_PASSING |= {"ResponseParserError", "ServiceRequestError", "ServiceResponseError", "TransportError"}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object, or a folder of objects: size in bytes, time of change (s since the epoch), MD5 hex ('': unknown)."""

    address: str
    folder: bool = False
    size: int = 0
    modified: float = 0.0
    md5: str = ""
    tag: str = ""


def scheme_of(address: str) -> str:
    """``s3`` of ``s3://bucket/key``; '' for what is no address.

    Raises:
        UserError: for an address of another kind, or without a bucket.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return ""
    if scheme not in PACKAGES or not rest or rest.startswith("/"):
        known = ", ".join(f"{s}://BUCKET/..." for s in PACKAGES)
        raise UserError(f"{address}: expected a local path or one of {known}")
    return scheme


@cache
def _filesystem(scheme: str) -> Any:
    require(PACKAGES[scheme], f"{scheme}://")
    import fsspec

    if scheme == "gs":  # it logs a traceback for each refusal, even for those that are expected here
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)

    system = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
    system.retries = 1
    return system


def _ask(address: str, call: Callable[[Any, str], T]) -> T:
    """One request, again and again while the failure is a passing one.

    Raises:
        FileNotFoundError, FileExistsError: what the store says of the object.
        StorageError: when the store refuses, or does not answer in ``TRIES`` tries.
    """
    scheme, _, path = address.partition("://")
    system = _filesystem(scheme)
    for n in itertools.count(1):
        try:
            return call(system, path)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as e:
            # each client has exceptions of its own: what is not known to pass ends here, with the address
            if not passing(e):
                raise StorageError(f"{address}: {_why(e)}") from e
            if n >= TRIES:
                raise StorageError(
                    f"{address}: no answer in {n} tries, the last: {_why(e)}; run the same command again later"
                ) from e
        time.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (n - 1)) * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def passing(e: Exception) -> bool:
    """Whether a failure may pass by itself: throttling, the server's own errors, a lost connection."""
    if isinstance(e, _LASTING):
        return False
    if isinstance(e, OSError):
        return e.errno not in (errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG)
    status = next((v for k in ("status_code", "status", "code") if isinstance(v := getattr(e, k, None), int)), 0)
    return status in (408, 429) or status >= 500 or bool(_PASSING & {c.__name__ for c in type(e).__mro__})


def _why(e: Exception) -> str:
    if isinstance(e, PermissionError) or "Credential" in type(e).__name__:
        return f"access is denied ({e}); check the credentials and the rights on the bucket"
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"


def _stored(scheme: str, info: dict[str, Any]) -> Stored:
    address = f"{scheme}://{str(info['name']).rstrip('/')}"
    if info.get("type") == "directory":
        return Stored(address, folder=True)
    when = info.get("LastModified") or info.get("last_modified") or info.get("updated") or 0.0
    when = datetime.fromisoformat(when) if isinstance(when, str) else when
    modified = when.timestamp() if isinstance(when, datetime) else float(when)
    tag = str(info.get("ETag") or info.get("etag") or info.get("generation") or modified).strip('"')
    return Stored(address, False, int(info["size"]), modified, _md5(info, tag), tag)


def _md5(info: dict[str, Any], tag: str) -> str:
    md5 = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    if md5:
        return (base64.b64decode(md5) if isinstance(md5, str) else bytes(md5)).hex()
    return tag if re.fullmatch(r"[0-9a-f]{32}", tag) else ""


def stat(address: str) -> Stored | None:
    """What lies at an address; None for nothing."""
    try:
        info = _ask(address, lambda system, path: system.info(path))
    except FileNotFoundError:
        return None
    return _stored(address.partition("://")[0], info)


def listing(address: str, deep: bool = False) -> list[Stored]:
    """What lies right below an address, or (``deep``) every object below it; sorted, empty where there is nothing."""
    scheme = address.partition("://")[0]
    try:
        if deep:
            found = list(_ask(address, lambda system, path: system.find(path, detail=True)).values())
        else:
            found = _ask(address, lambda system, path: system.ls(path, detail=True))
    except FileNotFoundError:
        return []
    below = (_stored(scheme, info) for info in found)
    return sorted((s for s in below if s.address.startswith(address.rstrip("/") + "/")), key=lambda s: s.address)


def read(address: str, start: int = 0, end: int = BLOCK) -> bytes:
    """The bytes from ``start`` up to ``end`` or the object's end, in one request.

    Raises:
        FileNotFoundError: when there is no such object.
    """

    def get(system: Any, path: str) -> bytes:
        try:
            return bytes(system.cat_file(path, start=start, end=end))
        except Exception as e:
            if _past_end(e):  # stores refuse the empty range: the object ends here
                return b""
            raise

    return _ask(address, get)


def _past_end(e: BaseException | None) -> bool:
    """Whether the store refused a range that begins at the object's end: S3 by EINVAL, the others by status 416."""
    if isinstance(e, OSError) and e.errno == errno.EINVAL:
        return True
    while e is not None:
        if any(str(getattr(e, name, "")) == "416" for name in ("status_code", "status", "code")):
            return True
        e = e.__cause__ or e.__context__
    return False


def blocks(address: str, size: int) -> Iterator[bytes]:
    """An object of ``size`` bytes, block by block."""
    for start in range(0, size, BLOCK):
        yield read(address, start, min(start + BLOCK, size))


def upload(address: str, path: Path) -> None:
    """Put a file: the object is there with all of its bytes or not at all.

    Raises:
        StorageError: as for all requests, and when there is no such bucket.
    """
    whole = path.stat().st_size <= ONE_REQUEST  # larger files go up in parts

    def put(system: Any, to: str) -> None:
        more = {"chunksize": ONE_REQUEST} if type(system).__module__.startswith("s3fs") else {}
        system.pipe_file(to, path.read_bytes(), **more) if whole else system.put_file(str(path), to)

    try:
        _ask(address, put)
    except FileNotFoundError as e:
        bucket = "/".join(address.split("/")[:3])
        raise StorageError(f"{address}: no such bucket, {bucket}; make it, or look at the address") from e


def md5_of(path: Path) -> str:
    """MD5 hex of a file: what the stores tell of their objects."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def delete(addresses: Sequence[str]) -> None:
    """Take objects away, one request each (a store's bulk request may fail in part); a missing one is no error."""
    for address in addresses:
        with suppress(FileNotFoundError):
            _ask(address, lambda system, path: system.rm_file(path))
