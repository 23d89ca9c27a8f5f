"""PostgreSQL: parameters of its connections, and causes of its outages in words for clients."""

from typing import Any

from sqlalchemy import URL

CONNECT_TIMEOUT_S = 5
"""Maximum seconds to connect to one address; libpq's own limit is 130 s for a host that does not answer."""
SILENCE_S = 15
"""Approximate seconds until either end of a connection notices that the other host is lost."""
LOCK_TIMEOUT_S = 5
"""Maximum seconds that a statement waits for a lock of another transaction."""
STATEMENT_TIMEOUT_S = 60
"""Maximum seconds of a statement."""
IDLE_TIMEOUT_S = 120
"""Maximum seconds between two statements of a transaction, so that a server that hangs gives up its locks."""
KEEPALIVES = {"keepalives_idle": SILENCE_S // 3, "keepalives_interval": SILENCE_S // 3, "keepalives_count": 2}
"""Seconds until the first probe of a silent TCP connection and between probes, and the number of probes."""
SESSION = {
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
    **{f"tcp_{name}": str(value) for name, value in KEEPALIVES.items()},
    "tcp_user_timeout": f"{SILENCE_S}s",
}
"""Parameters of each session, set as it starts."""
WITHOUT_TIMEOUTS = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"
"""Statements after which a transaction, such as a migration, may take any time."""
READ_ONLY_TRANSACTION = "25006"
"""SQLSTATE of a write to a server that only reads, such as a standby."""
CAUSES = {
    READ_ONLY_TRANSACTION: "PostgreSQL only reads, as a standby does",
    "55P03": f"another transaction has held a lock for {LOCK_TIMEOUT_S} s",
    "57014": "PostgreSQL has taken too long",
    "57P01": "PostgreSQL has ended the connection",
    "57P02": "PostgreSQL has ended the connection",
    "57P03": "PostgreSQL is starting or shutting down",
    "57P05": "PostgreSQL has ended the connection",
    "25P03": "PostgreSQL has ended the connection",
    "40P01": "transactions waited for each other",
    "53100": "PostgreSQL's disk is full",
    "53200": "PostgreSQL is out of memory",
    "53300": "PostgreSQL has no free connection",
}
"""Causes of outages by SQLSTATE."""
UNREACHABLE = "PostgreSQL cannot be reached"
"""Cause of an outage without an SQLSTATE: no connection, or one that was lost."""


def connect_args(url: URL, application: str) -> dict[str, Any]:
    """Return psycopg's arguments for a connection, without those that the URL sets; {} for other drivers."""
    if url.get_driver_name() != "psycopg":
        return {}
    arguments = {
        "application_name": application,
        "connect_timeout": CONNECT_TIMEOUT_S,
        **KEEPALIVES,
        "tcp_user_timeout": SILENCE_S * 1000,
        "prepare_threshold": None,  # a transaction behind PgBouncer may run in another session
        "options": " ".join(f"-c {name}={value}" for name, value in SESSION.items()),
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def cause_of(error: BaseException) -> str:
    """Return the cause of an outage for clients: libpq's texts name the host, port, user and database."""
    sqlstate: str | None = getattr(error, "sqlstate", None)
    if sqlstate is None:
        return UNREACHABLE
    return CAUSES.get(sqlstate, f"PostgreSQL refuses (SQLSTATE {sqlstate})")
