"""Inserts or changes a row in one statement, and recognizes a row that exists already.

SQLAlchemy's `Session.merge` reads before it writes: two servers on one PostgreSQL both find a row missing,
insert it, and one of them fails.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from dia_server.db.models import Base

INSERT: dict[str, Callable[[type[Base]], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Functions that make an INSERT with an ON CONFLICT clause, by the database's name."""
DUPLICATE = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, "23505"}
"""SQLite's error codes and PostgreSQL's SQLSTATE of a key that exists already."""


async def upsert(session: AsyncSession, row: Base) -> None:
    """Insert `row`, or change the row that has its primary key.

    A changed row gets the values set in `row`, and new values of the columns with `onupdate`; its other
    columns stay as they are. `row` itself does not join the session.
    """
    columns = type(row).__table__.columns
    given = _given(row)
    insert = INSERT[session.get_bind().dialect.name](type(row)).values(given)
    changed = [column for column in columns if column.name in given or column.onupdate is not None]
    await session.execute(
        insert.on_conflict_do_update(
            index_elements=[column for column in columns if column.primary_key],
            set_={column.name: insert.excluded[column.name] for column in changed if not column.primary_key},
        )
    )


async def insert_new(session: AsyncSession, row: Base) -> bool:
    """Insert `row`; return False, and change nothing, if a row has its primary key.

    Waits for a transaction that is inserting such a row. `row` itself does not join the session.
    """
    insert = INSERT[session.get_bind().dialect.name](type(row)).values(_given(row))
    keys = [column for column in type(row).__table__.columns if column.primary_key]
    result = await session.execute(insert.on_conflict_do_nothing().returning(*keys))
    return result.first() is not None


def _given(row: Base) -> dict[str, Any]:
    """Return the values set in `row` by the names of their columns."""
    columns = type(row).__table__.columns
    return {column.name: getattr(row, column.name) for column in columns if column.name in vars(row)}


def is_duplicate(error: IntegrityError) -> bool:
    """Return whether a row was refused because its key exists already."""
    return any(getattr(error.orig, name, None) in DUPLICATE for name in ("sqlite_errorcode", "sqlstate"))
