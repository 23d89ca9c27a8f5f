"""Changes on one server are heard on another, and one of them leads."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, text, update

from dia_server.db.engine import Database
from dia_server.db.listener import LEAD, Listener
from dia_server.db.models import AudioPrompt, ConfigValue, Pronunciation, Server, VoiceAnchor, VoiceMapping
from dia_server.errors import StorageUnavailable
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from tests.postgres import ON_POSTGRES, Postgres
from tests.waiting import until

pytestmark = ON_POSTGRES

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)


class Ear:
    """A listener with what it has heard."""

    def __init__(self, url: str, application: str = "dia-server") -> None:
        self.connects = 0
        self.messages: list[str] = []
        self.leads = False
        self.listener = Listener(
            url,
            application=application,
            on_connect=self._on_connect,
            on_message=self.messages.append,
            on_lead=self._on_lead,
            poll_s=0.05,
        )

    def _on_connect(self) -> None:
        self.connects += 1

    def _on_lead(self, leads: bool) -> None:
        self.leads = leads


@pytest.fixture
async def ears(database: Database, database_url: str) -> AsyncIterator[list[Ear]]:
    """Listeners of two servers."""
    ears = [Ear(database_url) for _ in range(2)]
    for ear in ears:
        await ear.listener.start()
    yield ears
    for ear in ears:
        await ear.listener.stop()


async def test_every_change_of_what_servers_keep_in_memory_is_heard(
    database: Database, ears: list[Ear]
) -> None:
    changes = {
        "voice_mappings": update(VoiceMapping).values(style="calm"),
        "voice_anchors": delete(VoiceAnchor),
        "audio_prompts": delete(AudioPrompt),
        "config": delete(ConfigValue),
        "pronunciations": delete(Pronunciation),
    }
    for statement in changes.values():
        async with database.sessions.begin() as session:
            await session.execute(statement)

    await until(lambda: all(len(ear.messages) >= len(changes) for ear in ears))
    assert [ear.messages for ear in ears] == [list(changes)] * 2


async def test_jobs_that_are_added_cancelled_or_requeued_are_heard(
    database: Database, ears: list[Ear]
) -> None:
    store = JobStore(database, Membership(database))
    await store.membership.join()
    job = await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "pending")
    await store.claim(1)
    await store.requeue(job.job_id)
    await store.claim(1)
    await store.save_progress({job.job_id: 0.5})
    await store.cancel(job.job_id)

    await until(lambda: len(ears[0].messages) >= 3)
    assert ears[0].messages == ["jobs pending", "jobs pending", f"jobs cancelled {job.job_id}"]


async def test_one_server_leads_and_another_follows_when_it_stops(ears: list[Ear]) -> None:
    first, second = ears
    assert (first.leads, second.leads) == (True, False)

    await first.listener.stop()

    assert not first.leads
    await until(lambda: second.leads)


async def test_a_broken_connection_is_opened_again(
    database: Database, ears: list[Ear], postgres: Postgres
) -> None:
    postgres.disconnect()

    await until(lambda: [ear.connects for ear in ears] == [2, 2])
    await until(lambda: [ear.leads for ear in ears].count(True) == 1)
    async with database.sessions.begin() as session:
        await session.execute(delete(ConfigValue))
    await until(lambda: all("config" in ear.messages for ear in ears))


async def test_a_silent_leader_is_cut_off(
    database: Database, other_database: Database, database_url: str
) -> None:
    """A process that stands still keeps its connections, and so its locks: of rows, and the leader's."""
    silent, heir = Membership(database, lease_s=-1), Membership(other_database)
    await silent.join()
    await heir.join()
    async with database.sessions() as frozen:
        await frozen.execute(text(LEAD.decode()))
        await frozen.execute(update(VoiceMapping).values(style="calm"))
        follower = Ear(database_url)
        await follower.listener.start()
        assert not follower.leads

        await heir.bury()

        await until(lambda: follower.leads)
        async with other_database.sessions.begin() as session:
            await session.execute(update(VoiceMapping).values(style="deep"))
        await follower.listener.stop()
        with pytest.raises(StorageUnavailable):
            await frozen.execute(text("SELECT 1"))


async def test_a_server_that_stands_still_in_a_transaction_loses_its_locks(
    database: Database, database_url: str
) -> None:
    heir = Membership(database)
    await heir.join()
    frozen = Database(database_url)
    silent = Membership(frozen, lease_s=-1)
    await silent.join()
    async with frozen.sessions() as session:
        await session.execute(update(Server).values(pid=1))  # locks the rows of both

        await heir.bury()

        assert await heir.renew()
        with pytest.raises(StorageUnavailable):
            await session.execute(text("SELECT 1"))
    await frozen.close()


async def test_a_notification_of_another_program_is_no_failure(database: Database, ears: list[Ear]) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text("NOTIFY dia"))
        await session.execute(delete(ConfigValue))
    await until(lambda: all("config" in ear.messages for ear in ears))
    assert [ear.connects for ear in ears] == [1, 1]
