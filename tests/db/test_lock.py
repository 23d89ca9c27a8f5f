from pathlib import Path

import pytest

from dia_server.db.lock import AlreadyServed, ServerLock


def test_a_database_has_one_server_at_a_time(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/dia.sqlite3"
    first, second = ServerLock(url), ServerLock(url)
    first.acquire()
    with pytest.raises(AlreadyServed, match="DIA_DATA_DIR"):
        second.acquire(patience_s=0.1)

    first.release()
    second.acquire(patience_s=0.1)
    second.release()


def test_databases_that_are_no_files_need_no_lock() -> None:
    for url in ("sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "postgresql+asyncpg://host/name"):
        first, second = ServerLock(url), ServerLock(url)
        first.acquire()
        second.acquire()
        first.release()
        second.release()
