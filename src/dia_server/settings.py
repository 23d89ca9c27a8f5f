"""Settings of one server, read from the environment (where the flags are set too) and `.env`.

Only cli.py, app.py, the doctor and migrations/env.py (for the `alembic` command) load settings; other modules
receive values as arguments.
"""

import os
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values
from msgspec import Meta, Struct

PREFIX = "DIA_"


def _doc(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of one server. Each field is read from a variable: `port` from `DIA_PORT`, and so on."""

    host: Annotated[str, _doc("Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1"
    port: Annotated[int, _doc("Port to listen on.", ge=1, le=65535)] = 7860
    data_dir: Annotated[
        str, _doc("Folder that holds `audio_prompts/`, `audio_outputs/` and `dia.sqlite3`.", min_length=1)
    ] = "."
    database_url: Annotated[
        str,
        _doc(
            "SQLAlchemy address of the database; empty for `dia.sqlite3` in the data folder. "
            "`postgresql+psycopg://user@host/name` needs the extra `postgres`."
        ),
    ] = ""
    database_connections: Annotated[
        int,
        _doc("Maximum connections of this server to PostgreSQL; without effect on SQLite.", ge=5, le=10_000),
    ] = 20
    database_listen_url: Annotated[
        str,
        _doc(
            "Address of the PostgreSQL server itself, if `DIA_DATABASE_URL` is that of a PgBouncer in "
            "transaction mode; empty for the same address."
        ),
    ] = ""
    storage: Annotated[
        str,
        _doc(
            "Object storage for recordings, anchors and results, which several servers share: "
            "`file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; empty "
            "for folders in the data folder. It needs the extra `storage`."
        ),
    ] = ""
    engine: Annotated[
        Literal["auto", "dia", "preview"],
        _doc("Speech engine: `dia` (the model), `preview` (espeak-ng), `auto` for Dia if there is a GPU."),
    ] = "auto"
    cluster: Annotated[
        str,
        _doc(
            "Address `host:port` of the head of a Ray cluster whose engines generate the speech (`dia-server "
            "engine` starts them); needs the extra `cluster`; empty for engines in this server."
        ),
    ] = ""
    model: Annotated[str, _doc("Dia checkpoint: a hub id or a local folder.")] = "nari-labs/Dia-1.6B-0626"
    codec: Annotated[str, _doc("DAC checkpoint: a hub id or a local folder.")] = "descript/dac_44khz"
    codec_dtype: Annotated[
        Literal["fp32", "fp16"],
        _doc(
            "Number format in which the codec decodes: `fp32`, which GPUs multiply in TF32, or `fp16`, on "
            "CUDA and ROCm only: half the memory traffic, and about the error of TF32."
        ),
    ] = "fp32"
    device: Annotated[str, _doc("Device that runs Dia: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.")] = "auto"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32", "int8"],
        _doc("Number format of Dia's weights; `int8` is never chosen by `auto`."),
    ] = "auto"
    torch_compile: Annotated[bool, _doc("Compile Dia's decode steps if the GPU supports it.")] = True
    idle_unload: Annotated[
        int,
        _doc("Seconds without work after which Dia is unloaded; 0 for never.", ge=0),
    ] = 0
    max_characters: Annotated[int, _doc("Maximum characters in a request's text.", ge=100, le=80_000)] = 4096
    normalize: Annotated[
        bool,
        _doc(
            "Say texts as people would read them: Markdown, URLs, emoji, numbers and abbreviations in words, "
            "unless a request says otherwise."
        ),
    ] = True
    code_blocks: Annotated[
        Literal["skip", "announce"],
        _doc('Leave the code blocks of a text out (`skip`), or say "Code block" for each (`announce`).'),
    ] = "skip"
    guard_retries: Annotated[
        int, _doc("Maximum retries of a faulty segment, each with the next seed.", ge=0, le=10)
    ] = 1
    guard_word_errors: Annotated[
        float,
        _doc(
            "Word error rate, as Whisper hears it, above which a segment is faulty; 0 for no check.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    normalize_loudness: Annotated[
        bool, _doc("Make all voices equally loud (-18 LUFS) unless a request says otherwise; Dia only.")
    ] = True
    voice_anchors: Annotated[
        Literal["auto", "on-demand", "off"],
        _doc(
            "Make an anchor, a few seconds of speech, for each voice without a recording, so that it sounds "
            "the same in every request: before its first use (`on-demand`), or on a GPU for all voices after "
            "the start (`auto`); `off`: never."
        ),
    ] = "auto"
    max_batch: Annotated[
        int, _doc("Maximum utterances in the batch; fewer if memory is short.", ge=1, le=256)
    ] = 64
    max_columns: Annotated[
        int,
        _doc(
            "Decoder columns of a slot (86 are a second), for voice prompt and speech together; fewer take "
            "less memory, and texts are cut into shorter segments.",
            ge=2048,
            le=3072,
        ),
    ] = 3072
    max_waiting: Annotated[
        int, _doc("Maximum utterances that wait for a slot; more are refused with 503.", ge=1, le=100_000)
    ] = 256
    shutdown_timeout: Annotated[
        int, _doc("Seconds that running work gets to finish when the server is stopped.", ge=0, le=3600)
    ] = 30
    api_keys: Annotated[
        tuple[str, ...],
        _doc("API keys, comma-separated; each request must carry one. If empty, no key is required."),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        _doc("More host names by which browsers may reach a server without keys, comma-separated; `*`: all."),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        _doc(
            "Origins whose pages may call the server; `*`: all; empty: local pages, or all if there are keys."
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        _doc("Addresses or networks of proxies whose `X-Forwarded-For` is trusted, comma-separated."),
    ] = ()
    config_writable: Annotated[bool, _doc("Let clients change the configuration while the server runs.")] = (
        True
    )
    rate_limit_generate: Annotated[
        int, _doc("Generations per minute and client; 0 for no limit.", ge=0, le=1_000_000)
    ] = 10
    rate_limit_upload: Annotated[
        int, _doc("Uploads per minute and client; 0 for no limit.", ge=0, le=1_000_000)
    ] = 5
    rate_limit_jobs: Annotated[
        int, _doc("Job queries per minute and client, and as many plans; 0 for no limit.", ge=0, le=1_000_000)
    ] = 100
    log_format: Annotated[
        Literal["console", "json"],
        _doc("Format of the log: `console` for people, or one JSON object per line."),
    ] = "console"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _doc("Lowest level that is logged.")
    ] = "info"
    show_prompts: Annotated[bool, _doc("Write the texts of requests to the log.")] = False
    whisper_model: Annotated[
        str, _doc("Whisper model that transcribes audio prompts: `tiny` to `large-v3`, `turbo`, or a folder.")
    ] = "base"
    whisper_idle: Annotated[
        int, _doc("Seconds without work after which Whisper is unloaded; 0 for never.", ge=0, le=1_000_000)
    ] = 300
    auto_transcribe: Annotated[bool, _doc("Transcribe new audio prompts with Whisper.")] = True
    transcribe_wait: Annotated[
        float,
        _doc(
            "Maximum seconds that an upload waits for its transcript, which otherwise follows later.",
            ge=0,
            le=600,
        ),
    ] = 10.0

    save_outputs: Annotated[
        bool, _doc("Also save the audio of synchronous requests in `audio_outputs/`, as for jobs.")
    ] = False
    output_retention_hours: Annotated[
        int, _doc("Hours that outputs and finished jobs are kept; 0 for ever.", ge=0, le=87_600)
    ] = 24
    auto_discover_prompts: Annotated[bool, _doc("Register new files in `audio_prompts/` at start.")] = True
    gpu_mode: Annotated[
        Literal["auto", "single", "multi"], _doc("Use one GPU (`single`) or all (`multi`); `auto` is all.")
    ] = "auto"
    worker_count: Annotated[
        int, _doc("Maximum engines, each on its own GPU; 0 for one per GPU.", ge=0, le=64)
    ] = 0

    @property
    def beyond_loopback(self) -> bool:
        """Return whether `host` is reachable from other machines, that is, not a loopback address."""
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    @property
    def audio_prompts(self) -> Path:
        return Path(self.data_dir) / "audio_prompts"

    @property
    def anchors(self) -> Path:
        return Path(self.data_dir) / "anchors"

    @property
    def candidates(self) -> Path:
        return Path(self.data_dir) / "candidates"

    @property
    def references(self) -> Path:
        return Path(self.data_dir) / "references"

    @property
    def cache(self) -> Path:
        return Path(self.data_dir) / "cache"

    @property
    def audio_outputs(self) -> Path:
        return Path(self.data_dir) / "audio_outputs"

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{Path(self.data_dir).resolve() / 'dia.sqlite3'}"

    @property
    def url(self) -> str:
        """Return the URL at which a browser on this machine reaches the server."""
        host = "localhost" if self.host in EVERYWHERE else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


EVERYWHERE = {"0.0.0.0", "::", ""}
"""Values of `host` that listen on every interface."""


class SettingsError(Exception):
    """A setting is invalid; the message names its variable and the values allowed."""


SECRET = {"api_keys", "database_url", "database_listen_url", "storage"}
"""Fields whose values are secret and never quoted in messages."""


def _check_network(text: str) -> None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError("expected addresses or networks like 10.0.0.0/8") from None


def _check_origin(text: str) -> None:
    if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/\sA-Z]*", text):
        raise ValueError("expected origins like https://example.org:8443, in lower case, or *")
    if re.search(r"^http:.*:80$|^https:.*:443$", text):
        raise ValueError("expected origins without their scheme's default port")


def _check_host(text: str) -> None:
    if not re.fullmatch(r"\*|[\w.-]*[\w-]", text, re.ASCII):
        raise ValueError("expected names like nas.fritz.box, without scheme and port and in ASCII, or *")


def _check_storage(text: str) -> None:
    parts = urlsplit(text)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("credentials and options come from variables such as AWS_ACCESS_KEY_ID")
    if text and not re.match(r"file:///.|(s3|gs|az)://[^/]", text):
        raise ValueError(
            "expected file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
        )


PARTS = {
    "trusted_proxies": _check_network,
    "cors_origins": _check_origin,
    "allowed_hosts": _check_host,
    "storage": _check_storage,
}
"""Maps settings to a function that raises ValueError for an invalid value, or item of a list."""


def variable(field: str) -> str:
    return PREFIX + field.upper()


def load(environ: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Settings:
    """Read all settings; the environment wins over `env_file`. Raises SettingsError if one is invalid."""
    variables = _variables(environ, env_file)
    values = {}
    for field in msgspec.structs.fields(Settings):
        if (text := variables.get(variable(field.name))) is not None:
            values[field.name] = _read(field, text.strip())
    conf = Settings(**values)
    if "api_keys" in values and not conf.api_keys and conf.beyond_loopback:
        raise SettingsError(
            f"{variable('api_keys')} is set but holds no key, and DIA_HOST={conf.host} is open to other "
            "machines. Name a key, or remove the variable to run without keys."
        )
    return conf


def given(environ: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> set[str]:
    """Return the names of the fields that the environment or `env_file` sets."""
    variables = _variables(environ, env_file)
    return {field.name for field in msgspec.structs.fields(Settings) if variable(field.name) in variables}


def wants_color(*, terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether to colour output, by the rules of https://no-color.org and https://force-color.org."""
    variables = os.environ if environ is None else environ
    if variables.get("NO_COLOR"):
        return False
    return terminal or bool(variables.get("FORCE_COLOR"))


def _variables(environ: Mapping[str, str] | None, env_file: Path) -> dict[str, str]:
    in_file = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
    return {**in_file, **(os.environ if environ is None else environ)}


def describe(field: msgspec.structs.FieldInfo) -> str:
    """Return the field's description, as `--help` and docs/configuration.md show it."""
    return str(next(meta.description for meta in field.type.__metadata__ if meta.description))


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield names of variables that begin with DIA_ but name no setting, usually misspelt ones."""
    known = {variable(field.name) for field in msgspec.structs.fields(Settings)}
    return (name for name in environ if name.startswith(PREFIX) and name not in known)


def _read(field: msgspec.structs.FieldInfo, text: str) -> Any:
    raw: Any = text
    if isinstance(field.default, tuple):
        raw = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        value = msgspec.convert(raw, field.type, strict=False)
        if check := PARTS.get(field.name):
            for part in value if isinstance(value, tuple) else (value,):
                check(part)
    except (msgspec.ValidationError, ValueError) as error:
        shown = "" if field.name in SECRET else f", not {text!r}"
        if choices := _choices(field):
            cause = f"must be one of {', '.join(choices)}"
        else:
            cause = str(error).lower() if isinstance(error, msgspec.ValidationError) else str(error)
        raise SettingsError(f"{variable(field.name)}: {cause}{shown}") from None
    return value


def _choices(field: msgspec.structs.FieldInfo) -> tuple[str, ...]:
    """Return the values of a boolean or Literal field; empty for other types."""
    kind = field.type.__origin__
    return ("true", "false") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
