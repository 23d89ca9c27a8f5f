from typing import Any

import httpx

PATIENCE_S = 60
"""Seconds that tests wait for anything; far more than is needed, for machines under load."""


class Address:
    """A server's URL. Each request opens a connection of its own, and waits up to PATIENCE_S."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self._request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self._request("POST", path, **arguments)

    def put(self, path: str, **arguments: Any) -> httpx.Response:
        return self._request("PUT", path, **arguments)

    def delete(self, path: str, **arguments: Any) -> httpx.Response:
        return self._request("DELETE", path, **arguments)

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        # reading certificates, which no URL of the tests needs, would take 30 ms of a core
        return httpx.request(method, self.url + path, timeout=PATIENCE_S, verify=False, **arguments)
