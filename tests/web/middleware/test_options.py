import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/voice_mappings", "GET, HEAD, OPTIONS, POST"),
        ("/config", "GET, HEAD, OPTIONS, PUT"),
        ("/jobs/some-job", "DELETE, GET, HEAD, OPTIONS"),
        ("/generate", "OPTIONS, POST"),
        ("/static/studio/main.js", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_lists_the_methods_of_a_path(
    client: AsyncTestClient[Litestar], path: str, methods: str
) -> None:
    answer = await client.options(path)

    assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", methods)


async def test_options_of_an_unknown_path_is_not_found(client: AsyncTestClient[Litestar]) -> None:
    assert (await client.options("/nowhere")).status_code == 404


async def test_options_needs_no_key_and_is_not_rate_limited(settings: Settings) -> None:
    limited = Settings(
        data_dir=settings.data_dir, engine="preview", api_keys=("secret",), rate_limit_generate=1
    )
    async with AsyncTestClient(create_app(limited)) as client:
        for _ in range(2):
            assert (await client.options("/generate")).status_code == 204
