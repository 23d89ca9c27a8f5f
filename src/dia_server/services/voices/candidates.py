"""Candidates of anchors: speech in a voice, of which a person keeps one as the voice's anchor.

They have a table and files of their own, because a job has one encoded result, and a candidate has codec
frames. A candidate's file has the format of an anchor's and is named after the candidate's id. Each change of
status is one transaction that first checks the old status, so that a candidate that is deleted while it is
made stays deleted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import CursorResult, and_, delete, func, select, update

from dia_server.db.advisory_lock import lock_between_servers
from dia_server.db.engine import Database
from dia_server.db.models import CandidateStatus as CandidateStatus
from dia_server.db.models import VoiceCandidate, now
from dia_server.errors import Conflict, NotFound, StorageUnavailable
from dia_server.services.peers import Membership
from dia_server.services.voices.anchor_file import SUFFIX
from dia_server.services.voices.anchor_folder import AnchorFiles
from dia_server.services.voices.file_commit import committing
from dia_server.services.voices.uninterrupted import uninterrupted

MAX_ATTEMPTS = 5
"""Starts after which a candidate fails if the server ended during each: it is assumed to be the cause."""

Row = VoiceCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A candidate as stored in the database."""

    voice_id: str
    transcript: str
    """Words that are spoken, without speaker tags."""
    style: str
    """Style by which it is ranked."""
    seed: int
    candidate_id: str = field(default_factory=lambda: str(uuid4()))
    status: CandidateStatus = "pending"
    attempts: int = 0
    """Number of starts."""
    error: str | None = None
    model: str | None = None
    """Id and revision of the model that generated it; None until it is completed."""
    duration: float | None = None
    """Duration in seconds; None until it is completed."""
    faults: tuple[str, ...] = ()
    """Names of the faults that the guard found."""
    pitch: float | None = None
    """Median fundamental frequency in Hz; None if it is not known."""
    word_errors: float | None = None
    """Word error rate by Whisper; None if it is not known."""
    created_at: datetime = field(default_factory=now)
    finished_at: datetime | None = None

    @classmethod
    def of(cls, row: Row) -> Self:
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    @property
    def file_name(self) -> str:
        return self.candidate_id + SUFFIX


class _Deleted(Exception):
    """The candidate was deleted while it was made."""


class CandidateStore:
    def __init__(self, database: Database, files: AnchorFiles, membership: Membership) -> None:
        self._membership = membership
        self._sessions = database.sessions
        self._reads = database.reads
        self._files = files

    async def clean(self) -> None:
        """Remove the files of all but completed candidates; raises StorageUnavailable."""

        async def names() -> set[str]:
            completed = select(Row.candidate_id).where(Row.status == "completed")
            async with self._reads() as session:
                return {candidate_id + SUFFIX for candidate_id in await session.scalars(completed)}

        await self._files.clean(names)

    async def take_over(self) -> Sequence[Candidate]:
        """Take over and return the pending candidates of servers that are gone, in the order of `of_voice`.

        Those that were started MAX_ATTEMPTS times are failed.
        """
        orphaned = and_(Row.status == "pending", self._membership.orphaned(Row.owner))
        error = f"The server stopped {MAX_ATTEMPTS} times while this candidate was made"
        async with self._sessions.begin() as session:
            await lock_between_servers(session, "takeover")
            await session.execute(
                update(Row)
                .where(orphaned, Row.attempts >= MAX_ATTEMPTS)
                .values(status="failed", error=error, finished_at=now())
            )
            rows = (await session.scalars(select(Row).where(orphaned).order_by(Row.number))).all()
            for row in rows:
                row.owner = self._membership.server_id
            return [Candidate.of(row) for row in rows]

    async def of_voice(self, voice_id: str) -> Sequence[Candidate]:
        """Return the candidates of a voice in the order in which they were asked for."""
        return await self._select(Row.voice_id == voice_id)

    async def count_unfinished(self) -> int:
        async with self._reads() as session:
            query = select(func.count()).where(Row.status == "pending")
            return await session.scalar(query) or 0

    async def get(self, voice_id: str, candidate_id: str) -> Candidate:
        """Return a candidate; raises NotFound."""
        found = await self._select(Row.voice_id == voice_id, Row.candidate_id == candidate_id)
        if not found:
            raise NotFound(
                f"Candidate {candidate_id!r} of voice {voice_id!r} does not exist; "
                f"GET /voices/{voice_id}/candidates lists them",
                param="candidate_id",
            )
        return found[0]

    async def content(self, candidate: Candidate) -> bytes:
        """Return the bytes of a candidate's file.

        Raises Conflict if the candidate is not completed, NotFound if its file is missing.
        """
        if candidate.status != "completed":
            cause = f": {candidate.error}" if candidate.error else ""
            raise Conflict(
                f"Candidate {candidate.candidate_id!r} is {candidate.status}{cause}", param="candidate_id"
            )
        try:
            return await self._files.read(candidate.file_name)
        except FileNotFoundError:
            raise NotFound(
                f"The file of candidate {candidate.candidate_id!r} is missing; "
                f"POST /voices/{candidate.voice_id}/candidates makes others",
                param="candidate_id",
            ) from None
        except OSError as error:
            raise StorageUnavailable(f"The candidate cannot be read: {error.strerror}") from error

    async def replace(self, voice_id: str, candidates: Sequence[Candidate]) -> None:
        """Store new candidates of a voice; its former ones are deleted."""
        async with self._sessions.begin() as session:
            former = list(await session.scalars(select(Row.candidate_id).where(Row.voice_id == voice_id)))
            await session.execute(delete(Row).where(Row.voice_id == voice_id))
            owner = self._membership.server_id
            session.add_all([Row(**asdict(candidate), owner=owner) for candidate in candidates])
        await self._remove(former)

    async def begin(self, candidates: Sequence[Candidate]) -> None:
        """Count a start of each of these pending candidates."""
        ids = [candidate.candidate_id for candidate in candidates]
        async with self._sessions.begin() as session:
            await session.execute(
                update(Row).where(Row.candidate_id.in_(ids)).values(attempts=Row.attempts + 1)
            )

    async def complete(self, candidate: Candidate, content: bytes) -> bool:
        """Store a pending candidate's result and the `content` of its file; return False if it was deleted.

        Raises StorageUnavailable, and then changes nothing. Cancellation does not interrupt it.
        """
        return await uninterrupted(self._complete(candidate, content))

    async def _complete(self, candidate: Candidate, content: bytes) -> bool:
        done = replace(candidate, status="completed", finished_at=now())
        files = {candidate.file_name: content}
        try:
            async with committing(self._files.change(), files, self._sessions, "candidate") as session:
                result = await session.execute(
                    update(Row)
                    .where(Row.candidate_id == candidate.candidate_id, Row.status == "pending")
                    .values(
                        status=done.status,
                        model=done.model,
                        duration=done.duration,
                        faults=done.faults,
                        pitch=done.pitch,
                        finished_at=done.finished_at,
                    )
                )
                assert isinstance(result, CursorResult)
                if result.rowcount == 0:
                    raise _Deleted
        except _Deleted:
            return False
        return True

    async def fail(self, candidate: Candidate, error: str) -> None:
        await self._change(candidate.candidate_id, "pending", status="failed", error=error, finished_at=now())

    async def set_word_errors(self, candidate: Candidate, rate: float) -> None:
        """Store the word error rate of a completed candidate, unless it has been deleted."""
        await self._change(candidate.candidate_id, "completed", word_errors=rate)

    async def delete(self, voice_id: str) -> None:
        """Delete all candidates of a voice."""
        await self.replace(voice_id, [])

    async def expire(self, moment: datetime) -> None:
        """Delete candidates that were finished before `moment`."""
        async with self._sessions.begin() as session:
            old = list(await session.scalars(select(Row.candidate_id).where(Row.finished_at < moment)))
            await session.execute(delete(Row).where(Row.candidate_id.in_(old)))
        await self._remove(old)

    async def _select(self, *which: Any) -> Sequence[Candidate]:
        async with self._reads() as session:
            rows = await session.scalars(select(Row).where(*which).order_by(Row.number))
            return [Candidate.of(row) for row in rows]

    async def _change(self, candidate_id: str, before: CandidateStatus, **values: Any) -> None:
        """Update a candidate if its status is `before`."""
        async with self._sessions.begin() as session:
            await session.execute(
                update(Row).where(Row.candidate_id == candidate_id, Row.status == before).values(**values)
            )

    async def _remove(self, candidate_ids: Sequence[str]) -> None:
        await self._files.remove([candidate_id + SUFFIX for candidate_id in candidate_ids])
