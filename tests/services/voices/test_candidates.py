import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dia_server.db.engine import Database
from dia_server.db.models import now
from dia_server.errors import Conflict, NotFound, StorageUnavailable
from dia_server.services.peers import Membership
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.candidates import MAX_ATTEMPTS, Candidate, CandidateStore


def candidate(seed: int, voice_id: str = "aria") -> Candidate:
    return Candidate(voice_id=voice_id, transcript="So it is.", style="deep", seed=seed)


@pytest.fixture
async def store(database: Database, tmp_path: Path) -> CandidateStore:
    store = CandidateStore(database, AnchorFolder(tmp_path / "candidates"), Membership(database))
    await store.clean()
    return store


@pytest.fixture
def later(database: Database, tmp_path: Path) -> Callable[[], CandidateStore]:
    """Returns the store of a server that starts after all earlier ones have ended."""
    return lambda: CandidateStore(database, AnchorFolder(tmp_path / "candidates"), Membership(database))


async def test_new_candidates_replace_those_of_their_voice_only(
    store: CandidateStore, later: Callable[[], CandidateStore], tmp_path: Path
) -> None:
    old, other, new = candidate(1), candidate(2, "kai"), candidate(3)
    for one in (old, other):
        await store.replace(one.voice_id, [one])
        assert await store.complete(one, b"audio")
    await store.replace("aria", [new])

    assert await store.of_voice("aria") == [new]
    assert [one.seed for one in await store.of_voice("kai")] == [2]
    assert [one.seed for one in await later().take_over()] == [3]
    assert os.listdir(tmp_path / "candidates") == [other.file_name]


async def test_a_candidate_deleted_while_it_is_made_stays_deleted(
    store: CandidateStore, tmp_path: Path
) -> None:
    one = candidate(1)
    await store.replace("aria", [one])
    await store.delete("aria")

    assert not await store.complete(one, b"audio")
    assert os.listdir(tmp_path / "candidates") == []
    with pytest.raises(NotFound):
        await store.get("aria", one.candidate_id)


async def test_a_full_disk_leaves_a_candidate_pending(store: CandidateStore, tmp_path: Path) -> None:
    one = candidate(1)
    await store.replace("aria", [one])
    os.rmdir(tmp_path / "candidates")

    with pytest.raises(StorageUnavailable, match="cannot be written"):
        await store.complete(one, b"audio")
    assert await store.of_voice("aria") == [one]


async def test_a_file_that_is_gone_is_told(store: CandidateStore, tmp_path: Path) -> None:
    one = candidate(1)
    await store.replace("aria", [one])
    await store.complete(one, b"audio")
    done = await store.get("aria", one.candidate_id)
    assert await store.content(done) == b"audio"
    os.remove(tmp_path / "candidates" / one.file_name)

    with pytest.raises(NotFound, match="POST /voices/aria/candidates makes others"):
        await store.content(done)


async def test_a_start_fails_what_has_ended_the_server_too_often(
    store: CandidateStore, later: Callable[[], CandidateStore]
) -> None:
    one, other = candidate(1), candidate(2)
    await store.replace("aria", [one, other])
    for _ in range(MAX_ATTEMPTS):
        assert len(await later().take_over()) == 2
        await store.begin([one])
    assert len(await later().take_over()) == 1

    failed, pending = await store.of_voice("aria")
    assert (failed.status, pending.status) == ("failed", "pending")
    with pytest.raises(Conflict, match=f"failed: The server stopped {MAX_ATTEMPTS} times"):
        await store.content(failed)


async def test_expired_ones_are_deleted_but_not_pending_ones(store: CandidateStore, tmp_path: Path) -> None:
    one, pending = candidate(1), candidate(2)
    await store.replace("aria", [one, pending])
    await store.complete(one, b"audio")

    await store.expire(now() - timedelta(hours=1))
    assert len(await store.of_voice("aria")) == 2
    await store.expire(now() + timedelta(hours=1))
    assert await store.of_voice("aria") == [pending]
    assert os.listdir(tmp_path / "candidates") == []
