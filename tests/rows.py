"""Statements on the database of a server, from outside of it."""

from typing import Any

from sqlalchemy import NullPool, create_engine, make_url, text

SQLITE_REFUSALS = {
    "at the write": "SELECT RAISE(ABORT, 'no')",
    "at the commit": "INSERT INTO refused VALUES ('nothing that exists')",
}
"""Statements of triggers that refuse a change."""
POSTGRES_REFUSALS = {
    "at the write": "CREATE TRIGGER refuse AFTER {changes} FOR EACH ROW {then}",
    "at the commit": (
        "CREATE CONSTRAINT TRIGGER refuse AFTER {changes} INITIALLY DEFERRED FOR EACH ROW {then}"
    ),
}
"""Statements that create triggers that refuse a change."""


def execute(url: str, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Execute a statement in a transaction of its own; return its rows.

    `url` is that of `Settings.sqlalchemy_url` or of the fixture `database_url`. Without `parameters`, colons
    stand for themselves.
    """
    asynchronous = make_url(url)
    driver = "sqlite" if asynchronous.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(asynchronous.set(drivername=driver), poolclass=NullPool)
    with engine.begin() as connection:
        escaped = statement if parameters else statement.replace(":", r"\:")
        result = connection.execute(text(escaped), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def refuse_changes(url: str, table: str, refusal: str = "at the write") -> None:
    """Make the database refuse every change of `table`, at the write or at the commit."""
    if url.startswith("sqlite"):
        reference = f"row TEXT REFERENCES {table} DEFERRABLE INITIALLY DEFERRED"
        execute(url, f"CREATE TABLE refused ({reference})")
        for change in ("INSERT", "UPDATE", "DELETE"):
            trigger = f"refuse_{change} AFTER {change} ON {table}"
            execute(url, f"CREATE TRIGGER {trigger} BEGIN {SQLITE_REFUSALS[refusal]}; END")
    else:
        body = "BEGIN RAISE 'no'; END"
        execute(url, f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        changes = f"INSERT OR UPDATE OR DELETE ON {table}"
        execute(url, POSTGRES_REFUSALS[refusal].format(changes=changes, then="EXECUTE FUNCTION no()"))
