"""Client names for fair scheduling in the engine."""

import hashlib
from collections.abc import Callable, Sequence

from litestar.types import Scope

from dia_server.web.middleware.auth import authorization


class ClientName:
    """Returns the hash of the request's API key if the server has keys, else the client address."""

    def __init__(self, keys: Sequence[str], client_address: Callable[[Scope], str]) -> None:
        self._has_keys = bool(keys)
        self._client_address = client_address

    def __call__(self, scope: Scope) -> str:
        if not self._has_keys:
            return self._client_address(scope)
        key = authorization(scope).partition(" ")[2].strip()
        return hashlib.sha256(key.encode()).hexdigest()  # keep the key itself out of the engine
