"""The command line: `dia-server serve`, `engine`, `doctor`, `bench`, `fidelity`, `db upgrade`,
`voices`.

It sets DIA_* variables and starts Granian, whose worker builds the application. Heavy modules are imported
only in the commands that need them, because child processes inherit or import this module.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from dia_server import __version__, settings
from dia_server.settings import Settings, SettingsError

if TYPE_CHECKING:
    from dia_server.engine.cluster.types import ReplicaCount
    from dia_server.voice_tools import Local, Remote

T = TypeVar("T")


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
    """Set the flags as environment variables, which the worker inherits; return all settings.

    Warns about unknown DIA_* variables; raises ClickException for an invalid setting.
    """
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
    """Upgrade the database's schema, then serve the API."""
    conf = load_settings(flags)
    _prepare_cluster(conf)
    # torch puts weights on pages of 2 MiB: a CPU looks up fewer addresses and reads them a tenth faster
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    address = _check_address(conf.host, conf.port)
    _prepare_data(conf)

    from dia_server import serving

    serving.run(msgspec.structs.replace(conf, host=address))


@main.command()
@click.option(
    "--replicas",
    default="auto",
    show_default=True,
    metavar="N|MIN-MAX|auto",
    help="Number of engines; from MIN to MAX by demand; or one per GPU of the cluster.",
)
@setting_flags
def engine(replicas: str, **flags: str | None) -> None:
    """Start the engines of a Ray cluster, or replace those that run by new ones, one by one.

    The settings of the model apply (DIA_ENGINE, DIA_MODEL, DIA_MAX_BATCH, ...).
    """
    conf = load_settings(flags)
    if not conf.cluster:
        raise click.ClickException("Name the head of the cluster: --cluster HOST:PORT (DIA_CLUSTER)")
    count = _replica_count(replicas)
    _prepare_cluster(conf)

    from dia_server import engines
    from dia_server.errors import ServerError

    try:
        ready = engines.deploy(conf, count)
    except ServerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{ready} engine{'s are' if ready > 1 else ' is'} ready.")


def _replica_count(replicas: str) -> "ReplicaCount | None":
    """Parse "2", "1-8", or "auto" (None); raises ClickException."""
    from dia_server.engine.cluster.types import ReplicaCount

    if replicas == "auto":
        return None
    if numbers := re.fullmatch(r"([1-9][0-9]*)(?:-([1-9][0-9]*))?", replicas):
        least, most = int(numbers[1]), int(numbers[2] or numbers[1])
        if least <= most:
            return ReplicaCount(least, most)
    raise click.ClickException("--replicas takes a number from 1, two such as 1-8, or auto")


def _prepare_cluster(conf: Settings) -> None:
    """If engines run on a cluster, set Ray's variables: tokens on, usage statistics off, unless they are set.

    Raises ClickException if Ray is not installed.
    """
    if not conf.cluster:
        return
    if find_spec("ray") is None:
        raise click.ClickException("DIA_CLUSTER needs Ray: install dia-server[cluster]")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _check_address(host: str, port: int) -> str:
    """Return the IP address of `host`; raises ClickException if `port` cannot be bound there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return str(probe.getsockname()[0])
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {host}:{port}: {error.strerror} (DIA_HOST, DIA_PORT)"
            ) from None


def _prepare_data(conf: Settings) -> None:
    """Upgrade the database; raises ClickException if the data is locked by another server or unusable.

    The data is locked during the upgrade only: afterwards the worker acquires the lock.
    """
    from dia_server.db.lock import AlreadyServed, ServerLock
    from dia_server.db.preparation import DatabaseUnusable, check_url, prepare
    from dia_server.services.object_store import StorageUnusable

    try:
        check_url(conf.sqlalchemy_url)
        if conf.storage:
            _check_storage(conf.storage)
        lock = ServerLock(conf.sqlalchemy_url, conf.audio_outputs)
        lock.acquire()
        try:
            asyncio.run(prepare(conf.sqlalchemy_url))
        finally:
            lock.release()
    except (AlreadyServed, DatabaseUnusable, StorageUnusable) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(
            f"The data folder cannot be used: {error.filename}: {error.strerror} (DIA_DATA_DIR)"
        ) from None


def _check_storage(url: str) -> None:
    """Raise StorageUnusable if the object storage at `url` cannot be used.

    Checks it in another process: this one is forked, and obstore's threads would be missing in the worker.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from dia_server.services.object_store import check

    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        apart.submit(check, url).result()


@main.group()
def db() -> None:
    """Manage the database."""


@db.command()
@setting_flags
def upgrade(**flags: str | None) -> None:
    """Upgrade the database's schema; data is kept."""
    conf = load_settings(flags)

    from dia_server.db.preparation import DatabaseUnusable, prepare

    try:
        revision = asyncio.run(prepare(conf.sqlalchemy_url))
    except DatabaseUnusable as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The database is at revision {revision}.")


@main.command()
@setting_flags
def doctor(**flags: str | None) -> None:
    """Check whether this machine can run the server; exits with status 1 if something is wrong."""
    conf = load_settings(flags)

    from dia_server.doctor import examine

    count = 0
    for finding in examine(conf):
        mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[finding.grade]
        click.echo(f"{mark}  {finding.subject + ':':<13}{finding.text}")
        count += finding.grade == "wrong"
    if count:
        raise click.ClickException(f"{count} problem{'s' if count > 1 else ''} found.")
    click.echo("No problems found.")


@main.command()
@click.argument("url", required=False)
@click.option("--clients", default="1,4,8", show_default=True, help="Concurrent requests of each round.")
@click.option(
    "--requests", type=click.IntRange(min=1), default=16, show_default=True, help="Requests per round."
)
@click.option("--voice", default="aria", show_default=True, help="Id of the voice that speaks.")
@click.option("--text", default="", help="Text to speak; a short dialogue by default.")
@click.option("--key", default="", help="API key, if the server requires one.")
def bench(url: str | None, clients: str, requests: int, voice: str, text: str, key: str) -> None:
    """Measure latency and throughput of the server at URL; without URL, of a server started for it.

    First raise DIA_RATE_LIMIT_GENERATE of the server at URL, or most requests are refused with 429.
    """
    from dia_server import bench as measurement

    try:
        counts = [int(count) for count in clients.split(",")]
    except ValueError:
        counts = []
    if min(counts, default=0) < 1:
        raise click.ClickException("--clients takes numbers from 1, comma-separated")
    with ExitStack() as stack:
        try:
            if url is None:
                conf = load_settings({})
                key = key or next(iter(conf.api_keys), "")
                url = stack.enter_context(measurement.own_server(_free_port()))
            click.echo(measurement.describe(url, key))
        except measurement.BenchError as error:
            raise click.ClickException(str(error)) from None
        text = text or measurement.TEXT
        rounds = [measurement.measure(url, n, requests, voice=voice, text=text, key=key) for n in counts]
    click.echo("\n".join(measurement.table(rounds)))
    if failures := {failure for r in rounds for failure in r.failures}:
        raise click.ClickException("; ".join(sorted(failures)))


SHORT_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
"""Short names of dtypes that `fidelity` takes beside those of DIA_DTYPE."""


@main.command()
@click.option(
    "--texts",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a text on each line; 50 built-in dialogues by default.",
)
@click.option("--count", type=click.IntRange(min=1), help="Number of texts, the first ones; all by default.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Seed of the first text."
)
@click.option(
    "--whisper", metavar="MODEL", help="Whisper model (a name or a folder) that counts wrong words."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@setting_flags
def fidelity(
    file: Path | None,
    count: int | None,
    seed: int,
    whisper: str | None,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Measure what a cheaper dtype of Dia's weights costs, compared with fp32 on the same weights.

    Compares --dtype (also fp16, bf16; by default what the server would choose) on Dia's own weights. Takes
    minutes on a GPU, and hours on a CPU: --count 5 is quicker.
    """
    flags["dtype"] = SHORT_DTYPES.get(flags["dtype"] or "", flags["dtype"])
    conf = load_settings(flags)

    from dia_server.errors import ServerError
    from dia_server.fidelity.report import table
    from dia_server.fidelity.texts import TEXTS, read_texts

    try:
        texts = (TEXTS if file is None else read_texts(file))[:count]
        from dia_server.fidelity.comparison import compare

        report = compare(conf, texts, seed=seed, whisper=whisper, progress=_show_progress)
    except ServerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(msgspec.json.encode(report).decode() if as_json else "\n".join(table(report)))


def _show_progress(stage: str, done: int, total: int) -> None:
    """Show the progress on stderr: in one line per stage on a terminal, else only a stage's end."""
    ended = done == total
    if ended or sys.stderr.isatty():
        click.echo(f"\r{stage}: {done} of {total}" if sys.stderr.isatty() else stage, err=True, nl=ended)


@main.group()
def voices() -> None:
    """List, make, export and import voices.

    Talks to the server that DIA_HOST and DIA_PORT name, with the first of DIA_API_KEYS. If none answers, the
    command opens the data folder itself.
    """


@voices.command("list")
@setting_flags
def list_voices(**flags: str | None) -> None:
    """List the voices, and what each sounds like."""
    from dia_server import voice_tools

    tools = _voice_tools(flags)
    click.echo("\n".join(voice_tools.voice_table(_tried(tools.voices))))


@voices.command()
@click.argument("voice")
@click.option("--count", type=click.IntRange(1, 8), default=4, show_default=True, help="Candidates to make.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the first candidate; default: random."
)
@click.option(
    "--style", help="`deep` or `bright` voices first, or those unlike the others; default: the voice's."
)
@click.option("--text", help="Text that they speak; default: two fixed sentences.")
@click.option(
    "--keep/--no-keep", default=True, show_default=True, help="Keep the best one as the voice's anchor."
)
@setting_flags
def make(
    voice: str,
    count: int,
    seed: int | None,
    style: str | None,
    text: str | None,
    keep: bool,
    **flags: str | None,
) -> None:
    """Make candidates of VOICE's anchor with Dia, and keep the best one."""
    from dia_server import voice_tools

    tools = _voice_tools(flags)
    candidates = _tried(lambda: tools.make(voice, count=count, seed=seed, style=style, text=text))
    click.echo("\n".join(voice_tools.candidate_table(candidates)))
    best = candidates[0] if candidates else None
    if best is None or best.status != "completed":
        raise click.ClickException("No candidate can be kept.")
    if keep:
        _tried(lambda: tools.keep(voice, best.candidate_id))
        click.echo(f"Kept {best.candidate_id}.")


@voices.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True))
@click.argument("voice", nargs=-1)
@click.option("--licence", help="Note about the terms of use, kept in the archive.")
@setting_flags
def export(file: str, voice: tuple[str, ...], licence: str | None, **flags: str | None) -> None:
    """Export each VOICE to the archive FILE; by default all but built-in ones without a sound."""
    tools = _voice_tools(flags)
    _tried(lambda: tools.export(voice, Path(file), licence))
    click.echo(f"Exported to {file}.")


@voices.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Replace voices and recordings that exist.")
@setting_flags
def import_voices(file: str, replace: bool, **flags: str | None) -> None:
    """Import all voices of the archive FILE, or none."""
    tools = _voice_tools(flags)
    imported = _tried(lambda: tools.add(Path(file), replace=replace))
    click.echo(f"Imported {', '.join(imported) or 'no voices'}.")


def _voice_tools(flags: dict[str, str | None]) -> "Remote | Local":
    """Return the tools for the running server, or for the data folder if none answers."""
    conf = load_settings(flags)

    from dia_server import voice_tools

    remote = voice_tools.Remote(conf.url, next(iter(conf.api_keys), ""))
    if remote.answers():
        return remote
    _prepare_data(conf)
    return voice_tools.Local(conf, settings.given())


def _tried(work: Callable[[], T]) -> T:
    """Return the result of `work`; raises ClickException if it fails."""
    from dia_server.voice_tools import VoiceToolError

    try:
        return work()
    except VoiceToolError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
