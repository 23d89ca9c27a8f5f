from types import SimpleNamespace

import pytest

from dia_server import serving

UNLIMITED = -1
WANTED = serving.MAX_CONNECTIONS + serving.SPARE_FILES


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 524_288, WANTED, 8192),
        (256, UNLIMITED, WANTED, 8192),
        (65_536, 65_536, None, 8192),
        (UNLIMITED, UNLIMITED, None, 8192),
        (1024, 4096, 4096, 2048),
        (1024, 1024, 1024, 512),
    ],
)
def test_as_many_connections_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, connections: int
) -> None:
    set_to: list[tuple[int, int]] = []
    system = SimpleNamespace(
        RLIMIT_NOFILE=7,
        RLIM_INFINITY=UNLIMITED,
        getrlimit=lambda _: (soft, hard),
        setrlimit=lambda _, limits: set_to.append(limits),
    )
    monkeypatch.setattr(serving, "resource", system)

    assert serving._connections() == connections
    assert set_to == ([] if raised is None else [(raised, hard)])
