"""A server of S3 on loopback, and the mark of tests that run on each kind of object storage."""

import logging
from functools import cache
from threading import Lock
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from obstore.store import from_url

from dia_server.services.object_store import ObjectStore, connect

BOTH_STORAGES = pytest.mark.parametrize("storage_url", ["file", "s3"], indirect=True)
"""Runs a test on a folder and on S3; its fixtures must include `storage_url`."""
ON_S3 = pytest.mark.parametrize("storage_url", ["s3"], indirect=True)
ON_FILE = pytest.mark.parametrize("storage_url", ["file"], indirect=True)
SECRET = "SecretOfTheTests"
"""Secret access key."""


class S3:
    """moto's server, in a thread; its buckets survive `stop`."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server: Any = None
        self._port = 0

    def start(self) -> None:
        """Start the server, unless it runs."""
        if self._server is not None:
            return
        from moto.server import ThreadedMotoServer  # takes 0.3 s, and most tests need it not

        _put_one_at_a_time()
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()
        self._server = None

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a client."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "key-of-the-tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def create(self) -> str:
        """Create a bucket; return the DIA_STORAGE of a prefix in it."""
        bucket = f"b{uuid4().hex}"
        request = Request(f"{self.variables['AWS_ENDPOINT_URL']}/{bucket}", method="PUT")
        with urlopen(request):
            return f"s3://{bucket}/some/prefix"


@cache
def _put_one_at_a_time() -> None:
    """Make moto's conditional PUTs atomic, as those of S3 are: it answers requests in threads."""
    from moto.s3.responses import S3Response

    put, lock = S3Response._key_response_put, Lock()

    def locked(self: Any, *arguments: Any) -> Any:
        with lock:
            return put(self, *arguments)

    S3Response._key_response_put = locked


def open_store(url: str, owner: str = "the tests' database") -> ObjectStore:
    async def database_id() -> str:
        return owner

    return connect(url, database_id)


class Objects:
    """The objects of a storage, as another program sees them."""

    def __init__(self, url: str) -> None:
        self._store = from_url(url, client_options={"allow_http": True})

    def versions(self, folder: str) -> dict[str, object]:
        """Map the name of each object in `folder` to the time of its last change."""
        found = self._store.list(f"{folder}/").collect()
        return {one["path"].removeprefix(f"{folder}/"): one["last_modified"] for one in found}

    def read(self, name: str) -> bytes:
        return bytes(self._store.get(name).bytes())

    def write(self, name: str, content: bytes) -> None:
        self._store.put(name, content)

    def remove(self, name: str) -> None:
        self._store.delete(name)
