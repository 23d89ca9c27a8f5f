from collections.abc import Iterator

import pytest

from tests.live.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without rate limits that the tests of a module share."""
    with Server(tmp_path_factory.mktemp("server"), rate_limit_generate=0) as server:
        yield server
