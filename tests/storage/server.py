"""A real S3 server on the loopback (moto's), with a counter of requests and faults on demand in front of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "ahp"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_ERRORS = {
    503: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    500: ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
}


class Front:
    """The WSGI application before moto: ``fault(method, key, n)`` gives 503 or 500 for the n-th request, or 0."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.fault: Callable[[str, str, int], int] = lambda method, key, n: 0
        self.done: list[tuple[str, str]] = []
        self.given = 0  # bytes in the answers to GET
        self.refused: Counter[int] = Counter()
        self.asked = 0
        self._lock = threading.Lock()

    def __call__(self, environ, start_response) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        key = path.removeprefix(f"/{BUCKET}").strip("/")
        with self._lock:
            self.asked += 1
            status = self.fault(method, key, self.asked)
            if status:
                self.refused[status] += 1
        if status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            line, code, words = _ERRORS[status]
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
            start_response(line, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return iter([body])
        copied = "HTTP_X_AMZ_COPY_SOURCE" in environ

        def answered(said, headers, *rest):
            if said.startswith("20"):
                with self._lock:
                    self.done.append(("COPY" if copied else method, key))
                    self.given += int(dict(headers).get("Content-Length", 0)) if method == "GET" else 0
            return start_response(said, headers, *rest)

        return self.app(environ, answered)

    def puts(self) -> Counter[str]:
        """How often each key was written and stood."""
        return Counter(k for m, k in self.done if m in ("PUT", "COPY") and k)

    def forget(self) -> None:
        """Count anew."""
        self.done.clear()
        self.given = 0
        self.refused.clear()


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        return


@contextmanager
def serving() -> Iterator[tuple[Front, str]]:
    """(the front, the server's URL) of a server of its own."""
    front = Front()
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield front, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


class Bucket:
    """The bucket, asked without the code under test."""

    def __init__(self, url: str) -> None:
        self._s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing",
                                aws_secret_access_key="testing")  # fmt: skip
        self._s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def put_tree(self, prefix: str, folder: Path) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def get(self, key: str) -> bytes:
        return self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def tree(self, prefix: str) -> dict[str, bytes]:
        """Content by name below a prefix."""
        return {k.removeprefix(f"{prefix}/"): self.get(k) for k in self.keys(f"{prefix}/")}
