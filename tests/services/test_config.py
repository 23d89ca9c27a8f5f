from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from dia_server.configuration import default_config, set_variables
from dia_server.db.engine import Database
from dia_server.errors import Invalid, StorageUnavailable
from dia_server.services.config import Config, ConfigService
from dia_server.settings import Settings

READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
}
"""Statement after which a connection refuses writes, by the database's name."""


async def opened(database: Database, **settings: Any) -> ConfigService:
    service = ConfigService(database.sessions, default_config(Settings(**settings)))
    await service.load()
    return service


async def test_settings_are_the_defaults_and_changes_survive_a_restart(database: Database) -> None:
    service = await opened(database, output_retention_hours=5, show_prompts=True)
    assert (service.current.output_retention_hours, service.current.show_prompts) == (5, True)

    await service.update({"output_retention_hours": 7})

    again = await opened(database, output_retention_hours=9, show_prompts=False)
    assert (again.current.output_retention_hours, again.current.show_prompts) == (7, False)


async def test_listeners_get_the_current_configuration_and_every_change(database: Database) -> None:
    service = await opened(database)
    heard: list[Config] = []
    service.subscribe(heard.append)
    await service.update({"debug_mode": True})

    assert [config.debug_mode for config in heard] == [False, True]


async def test_an_overridden_variable_is_logged_at_the_start(database: Database) -> None:
    await (await opened(database)).update({"save_outputs": True, "debug_mode": True})

    with capture_logs() as lines:
        service = ConfigService(
            database.sessions,
            default_config(Settings(save_outputs=False, log_level="debug")),
            set_variables({"save_outputs", "log_level", "port"}),
        )
        await service.load()

    assert lines == [
        {
            "log_level": "warning",
            "event": "stored configuration overrides a variable",
            "variable": "DIA_SAVE_OUTPUTS",
            "variable_says": False,
            "stored": True,
            "reset": "DELETE /config/save_outputs",
        }
    ]


async def test_restart_required_lists_fields_until_the_restart(database: Database) -> None:
    service = await opened(database)
    await service.update({"worker_count": 2, "debug_mode": True})
    assert service.restart_required == ["worker_count"]

    assert (await opened(database)).restart_required == []


async def test_only_the_operator_may_name_a_whisper_folder(database: Database) -> None:
    service = await opened(database, whisper_model="/models/whisper")
    await service.update({"whisper_model_size": "small"})
    await service.update({"whisper_model_size": "/models/whisper"})
    with pytest.raises(Invalid, match="whisper_model_size"):
        await service.update({"whisper_model_size": "/etc", "debug_mode": True})
    assert not service.current.debug_mode


async def test_stored_values_that_this_version_cannot_use_are_ignored(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(
            text("INSERT INTO config VALUES ('gone', '1'), ('debug_mode', '2'), ('show_prompts', 'true')")
        )

    service = await opened(database)
    assert (service.current.debug_mode, service.current.show_prompts) == (False, True)


async def test_a_change_that_cannot_be_stored_is_not_applied(database: Database) -> None:
    service = await opened(database)
    async with database.sessions.begin() as session:
        await session.execute(text(READ_ONLY[session.get_bind().dialect.name]))
    with pytest.raises(StorageUnavailable):
        await service.update({"debug_mode": True})
    assert not service.current.debug_mode


async def test_what_another_server_changed_during_the_start_stays(database: Database) -> None:
    service, other = await opened(database), await opened(database)
    await other.update({"show_prompts": True, "worker_count": 3})
    await service.reload()

    service.set_effective(worker_count=2, torch_compile_enabled=False)

    assert service.current == replace(other.current, torch_compile_enabled=False)
    assert service.restart_required == ["worker_count"]


async def test_a_value_is_stored_although_memory_lacks_another_servers_change(database: Database) -> None:
    service, other = await opened(database), await opened(database)
    await other.update({"show_prompts": True, "output_retention_hours": 7})

    changed = await service.update({"show_prompts": False})

    assert (changed.show_prompts, changed.output_retention_hours) == (False, 7)
    assert (await opened(database)).current == changed


async def test_an_effective_value_that_a_client_sends_back_is_not_stored(database: Database) -> None:
    service = await opened(database)
    service.set_effective(worker_count=2)

    await service.update({"worker_count": 2})

    assert service.stored == []
