"""Configuration that can be changed at run time: read from memory, stored in the database.

Stored values take precedence over the settings (flags, environment variables), also at the next start.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_type_hints

import msgspec
import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import ConfigValue
from dia_server.db.upsert import upsert
from dia_server.errors import Invalid, NotFound
from dia_server.services.voices.whisper import SIZES

log = structlog.get_logger()

GpuMode = Literal["auto", "single", "multi"]

MAX_RETENTION_HOURS = 87_600
"""Maximum hours that results are kept: ten years."""
MAX_WORKERS = 64

NEEDS_RESTART = ("gpu_mode", "worker_count", "torch_compile_enabled")
"""Fields whose changes take effect at the next start, when the engines are built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    debug_mode: bool
    save_outputs: bool
    show_prompts: bool
    output_retention_hours: int
    """Hours until finished jobs and their results are deleted; 0 keeps them forever."""
    auto_discover_prompts: bool
    auto_transcribe: bool
    whisper_model_size: str
    gpu_mode: GpuMode
    worker_count: int
    """Number of engines, at most one per GPU; 0: one per GPU."""
    torch_compile_enabled: bool


FIELDS = [field.name for field in fields(Config)]


def decode_stored(rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the values of `rows` (name, JSON); skip and log values that this version cannot use."""
    types = get_type_hints(Config)
    stored: dict[str, Any] = {}
    for name, value in rows:
        try:
            stored[name] = msgspec.json.decode(value, type=types[name])
        except (KeyError, msgspec.MsgspecError):
            log.warning("configuration value ignored", name=name)
    return {name: stored[name] for name in FIELDS if name in stored}


def find_overridden(
    stored: Mapping[str, Any], defaults: Config, variables: Mapping[str, str]
) -> dict[str, str]:
    """Return the entries of `variables` (field to variable) whose `stored` value differs from the default."""
    return {
        name: variables[name]
        for name, value in stored.items()
        if name in variables and value != getattr(defaults, name)
    }


class ConfigService:
    """Holds the `current` configuration, and calls the functions given to `subscribe` after each change."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        defaults: Config,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`defaults` come from the settings; `variables` maps fields to the environment variables set."""
        self._sessions = sessions
        self._defaults = defaults
        self._variables = variables or {}
        self._stored: dict[str, Any] = {}
        self._loaded = defaults
        """Configuration requested at the start: `defaults` overridden by the stored values."""
        self._running = defaults
        """`_loaded` with the values of `set_effective`; NEEDS_RESTART fields keep these until a restart."""
        self._listeners: list[Callable[[Config], None]] = []
        self._lock = asyncio.Lock()
        """Held while the stored values change, or are read."""
        self.current = defaults

    async def load(self) -> None:
        """Load the stored values, and log each environment variable that they override."""
        self._stored = await self._read()
        for name, variable in self.overridden.items():
            log.warning(
                "stored configuration overrides a variable",
                variable=variable,
                variable_says=getattr(self._defaults, name),
                stored=self._stored[name],
                reset=f"DELETE /config/{name}",
            )
        self._loaded = self._running = replace(self._defaults, **self._stored)
        self._publish(self._running)

    async def reload(self) -> None:
        """Load the stored values again, after another server's change."""
        async with self._lock:
            self._adopt(await self._read())

    def set_effective(self, **fields: Any) -> None:
        """Set `fields` to the values with which the engines were built, instead of the requested ones.

        A field that has been changed since then keeps its value, which a restart needs.
        """
        requested, self._running = self._running, replace(self._running, **fields)
        unchanged = [name for name in fields if getattr(self.current, name) == getattr(requested, name)]
        self._publish(replace(self.current, **{name: fields[name] for name in unchanged}))

    async def update(self, changes: Mapping[str, Any]) -> Config:
        """Store the `changes` and return the changed configuration.

        Raises Invalid if the Whisper model is unknown, and then changes nothing. Values equal to the current
        ones are not stored: a client that sends back every field it has read must not pin the defaults.
        """
        size = changes.get("whisper_model_size")
        # only the operator (through settings) may name a model folder, not API clients
        if size is not None and size not in {*SIZES, self._defaults.whisper_model_size}:
            raise Invalid(
                f"whisper_model_size: {size!r} is not one of {', '.join(SIZES)}",
                param="whisper_model_size",
            )
        async with self._lock:
            async with self._sessions.begin() as session:
                self._adopt(await _stored_values(session))  # memory may lack another server's latest change
                changes = {
                    name: value for name, value in changes.items() if value != getattr(self.current, name)
                }
                for name, value in sorted(changes.items()):  # one order of locks: no two updates deadlock
                    await upsert(session, ConfigValue(name=name, value=msgspec.json.encode(value).decode()))
            log.info("configuration changed", **changes)
            self._stored |= changes
            self._publish(replace(self.current, **changes))
            return self.current

    async def reset(self, name: str) -> None:
        """Delete the stored value of the field `name`, if there is one: its default applies again.

        Raises NotFound if the configuration has no such field.
        """
        if name not in FIELDS:
            raise NotFound(
                f"The configuration has no field {name!r}; it must be one of {', '.join(FIELDS)}",
                param="name",
            )
        async with self._lock:
            async with self._sessions.begin() as session:
                await session.execute(delete(ConfigValue).where(ConfigValue.name == name))
            if self._stored.pop(name, None) is None:
                return
            value = self._value(name)
            log.info("stored configuration reset", **{name: value})
            self._publish(replace(self.current, **{name: value}))

    def subscribe(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` on the event loop with the configuration, now and after each change."""
        self._listeners.append(listener)
        listener(self.current)

    @property
    def stored(self) -> list[str]:
        """Names of the fields that have a stored value."""
        return [name for name in FIELDS if name in self._stored]

    @property
    def overridden(self) -> dict[str, str]:
        """Fields whose stored value overrides an environment variable, mapped to that variable's name."""
        return find_overridden(self._stored, self._defaults, self._variables)

    @property
    def restart_required(self) -> list[str]:
        """Fields whose current value only takes effect after a restart."""
        return [name for name in NEEDS_RESTART if getattr(self.current, name) != getattr(self._running, name)]

    async def _read(self) -> dict[str, Any]:
        async with self._sessions() as session:
            return await _stored_values(session)

    def _adopt(self, stored: dict[str, Any]) -> None:
        """Replace the values in memory by those in the database, which another server may have changed."""
        former, self._stored = self._stored, stored
        changed = [name for name in FIELDS if former.get(name) != stored.get(name)]
        if changed:
            log.info("configuration changed by another server", fields=changed)
            self._publish(replace(self.current, **{name: self._value(name) for name in changed}))

    def _value(self, name: str) -> Any:
        """Return the stored value of a field, else its default.

        If the default was requested at the start, this is the effective value that it became.
        """
        default = getattr(self._defaults, name)
        if name in self._stored:
            return self._stored[name]
        return getattr(self._running, name) if getattr(self._loaded, name) == default else default

    def _publish(self, config: Config) -> None:
        self.current = config
        for listener in self._listeners:
            listener(config)


async def _stored_values(session: AsyncSession) -> dict[str, Any]:
    rows = (await session.scalars(select(ConfigValue))).all()
    return decode_stored((row.name, row.value) for row in rows)
