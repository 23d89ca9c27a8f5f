from pathlib import Path

from sqlalchemy import update

from dia_server.db.engine import Database
from dia_server.db.identity import database_id
from dia_server.db.models import VoiceMapping
from dia_server.services.voices.service import Voice
from tests.libraries import Home
from tests.postgres import BOTH_DATABASES


@BOTH_DATABASES
async def test_a_database_is_told_from_others(database: Database, database_url: str, tmp_path: Path) -> None:
    other = Database(f"sqlite+aiosqlite:///{tmp_path}/other.sqlite3")
    await other.upgrade()
    before = await database_id(database.reads)
    assert await database_id(other.reads) != before
    await other.close()

    home = Home(tmp_path / "home", database_url)
    await home.open()
    await home.voices.save(Voice("aria", "deep"))
    await home.voices.save(Voice("anna"))
    async with database.sessions.begin() as session:
        await session.execute(update(VoiceMapping).values(style="calm"))
    again = Database(database_url)
    assert await database_id(again.reads) == before
    await again.close()
    await home.database.close()
