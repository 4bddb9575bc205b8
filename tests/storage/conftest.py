"""One S3 server a test session; each test has its own front counters, cache and prefix."""

from __future__ import annotations

import pytest

from ahp_toolkit.storage import locations, remote
from tests.storage.server import BUCKET, ENVIRONMENT, Bucket, serving


@pytest.fixture(scope="session")
def server():
    with serving() as (front, url):
        yield front, url, Bucket(url)


@pytest.fixture
def s3(server, tmp_path, monkeypatch, request):
    """(front, bucket, address of an empty prefix), the toolkit pointed to them, and waits cut short."""
    front, url, bucket = server
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": url, "AHP_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.005)
    monkeypatch.setattr(locations, "_RECENT", locations._Recent())
    front.fault = lambda method, key, n: 0
    front.forget()
    yield front, bucket, f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"
    front.fault = lambda method, key, n: 0
