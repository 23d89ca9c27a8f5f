"""The configuration that can be changed while the server runs: read from memory, kept in the database.

What was changed wins over the settings that the server was started with, also after a restart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_type_hints

import msgspec
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import ConfigValue
from dia_server.errors import Invalid
from dia_server.services.whisper import SIZES

log = structlog.get_logger()

GpuMode = Literal["auto", "single", "multi"]

MAX_RETENTION_HOURS = 87_600
MAX_WORKERS = 64

NEEDS_RESTART = ("gpu_mode", "worker_count", "torch_compile_enabled")
"""Fields that are read once, when the engines are built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    debug_mode: bool
    save_outputs: bool
    show_prompts: bool
    output_retention_hours: int
    """0 is for ever."""
    auto_discover_prompts: bool
    auto_transcribe: bool
    whisper_model_size: str
    gpu_mode: GpuMode
    worker_count: int
    """0 is one for each GPU."""
    torch_compile_enabled: bool


class ConfigService:
    """`current` is the configuration at this moment; `subscribe` tells of every change."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], defaults: Config) -> None:
        self._sessions = sessions
        self._defaults = defaults
        self._running = defaults
        """What the server runs with; `current` is ahead of it where a change needs a restart."""
        self._listeners: list[Callable[[Config], None]] = []
        self.current = defaults

    async def load(self) -> None:
        """Read what was changed in earlier runs; values that this version can't use are left out."""
        async with self._sessions() as session:
            rows = (await session.scalars(select(ConfigValue))).all()
        types = get_type_hints(Config)
        kept: dict[str, Any] = {}
        for row in rows:
            try:
                kept[row.name] = msgspec.json.decode(row.value, type=types[row.name])
            except (KeyError, msgspec.MsgspecError):
                log.warning("configuration value left out", name=row.name)
        self._running = replace(self._defaults, **kept)
        self._become(self._running)

    def settle(self, **fields: Any) -> None:
        """Put what came of `fields`, once the engines are built, in place of what was wished for."""
        self._running = replace(self._running, **fields)
        self._become(self._running)

    async def update(self, changes: Mapping[str, Any]) -> Config:
        """Change the fields named, for now and for later runs; raises Invalid and changes nothing.

        What needs a restart and is so already is not kept for later runs.
        """
        size = changes.get("whisper_model_size")
        # a folder may be named by who starts the server, not by who may call it
        if size is not None and size not in {*SIZES, self._defaults.whisper_model_size}:
            raise Invalid(
                f"whisper_model_size: {size!r} is none of {', '.join(SIZES)}",
                param="whisper_model_size",
            )
        # who sends back what GET tells does not want it to hold for whatever hardware comes
        changes = {
            name: value
            for name, value in changes.items()
            if name not in NEEDS_RESTART or value != getattr(self.current, name)
        }
        async with self._sessions.begin() as session:
            for name, value in changes.items():
                await session.merge(ConfigValue(name=name, value=msgspec.json.encode(value).decode()))
        log.info("configuration changed", **changes)
        self._become(replace(self.current, **changes))
        return self.current

    def subscribe(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` on the event loop with the configuration, now and whenever it has changed."""
        self._listeners.append(listener)
        listener(self.current)

    @property
    def restart_required(self) -> list[str]:
        """Fields whose new value is only used after a restart."""
        return [name for name in NEEDS_RESTART if getattr(self.current, name) != getattr(self._running, name)]

    def _become(self, config: Config) -> None:
        self.current = config
        for listener in self._listeners:
            listener(config)
