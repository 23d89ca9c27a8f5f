"""The command line: `dia-server serve`, `dia-server db upgrade`.

It only sets DIA_* variables and starts Granian, whose worker builds the application; nothing heavy is
imported here, since workers are forked from this process.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import click
import msgspec

from dia_server import __version__, settings
from dia_server.settings import Settings, SettingsError


def setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` a flag for each setting; a flag wins over the environment and `.env`."""
    for field in reversed(msgspec.structs.fields(Settings)):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        command = click.option(
            "--" + field.name.replace("_", "-"),
            field.name,
            metavar="VALUE",
            help=f"{settings.describe(field)}  [{settings.variable(field.name)}, {default or 'none'}]",
        )(command)
    return command


def load_settings(flags: dict[str, str | None]) -> Settings:
    """Put the flags into the environment, where the worker finds them, and read all settings."""
    os.environ |= {settings.variable(name): value for name, value in flags.items() if value is not None}
    for name in settings.unknown(os.environ):
        click.echo(f"Warning: {name} is not a setting; `dia-server serve --help` lists them.", err=True)
    try:
        return settings.load()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@click.group(context_settings={"max_content_width": 110})
@click.version_option(__version__, prog_name="dia-server")
def main() -> None:
    """A text-to-speech server for the Dia dialogue model."""


@main.command()
@setting_flags
def serve(**flags: str | None) -> None:
    """Serve the API; the database is brought up to date first."""
    conf = load_settings(flags)
    _check_address(conf.host, conf.port)
    _check_database(conf.sqlalchemy_url)

    from granian.constants import Interfaces, Loops
    from granian.log import LogLevels
    from granian.server import Server

    from dia_server import logs

    logs.configure(conf.log_format, conf.log_level)
    Server(
        "dia_server.app:create_app",
        address=conf.host,
        port=conf.port,
        interface=Interfaces.ASGI,
        workers=1,
        runtime_threads=1,
        loop=Loops.auto,
        factory=True,
        log_level=LogLevels(conf.log_level),
        log_dictconfig=logs.dict_config(conf.log_format, conf.log_level),
    ).serve()


def _check_address(host: str, port: int) -> None:
    """Fail in words, before anything is started, where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {host}:{port}: {error.strerror} (DIA_HOST, DIA_PORT)"
            ) from None


def _check_database(url: str) -> None:
    """Fail in words where another server has the database; the worker then takes its lock."""
    from dia_server.db.lock import AlreadyServed, ServerLock

    lock = ServerLock(url)
    try:
        lock.acquire()
    except AlreadyServed as error:
        raise click.ClickException(str(error)) from None
    lock.release()


@main.group()
def db() -> None:
    """Look after the database."""


@db.command()
@setting_flags
def upgrade(**flags: str | None) -> None:
    """Bring the database's schema up to date; data is kept."""
    conf = load_settings(flags)

    from dia_server.db.engine import Database

    async def run() -> str:
        database = Database(conf.sqlalchemy_url)
        try:
            return await database.upgrade()
        finally:
            await database.close()

    click.echo(f"The database is at revision {asyncio.run(run())}.")
