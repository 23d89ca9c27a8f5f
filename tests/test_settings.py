import re
from pathlib import Path

import msgspec
import pytest

from dia_server import settings
from dia_server.settings import Settings, SettingsError

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"
FIELDS = msgspec.structs.fields(Settings)
NOWHERE = Path("/nonexistent/.env")


def load(**variables: str) -> Settings:
    return settings.load(variables, NOWHERE)


def test_without_variables_settings_have_their_defaults() -> None:
    assert load() == Settings()


def test_variables_are_read_as_their_types() -> None:
    conf = load(
        DIA_PORT="8080",
        DIA_API_KEYS="one, two,",
        DIA_SHOW_PROMPTS="true",
        DIA_ENGINE=" dia ",
        DIA_CORS_ORIGINS="https://a.example, null,app://b",
    )

    assert (conf.port, conf.api_keys, conf.show_prompts, conf.engine, conf.cors_origins) == (
        8080,
        ("one", "two"),
        True,
        "dia",
        ("https://a.example", "null", "app://b"),
    )


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("DIA_PORT=1111\nDIA_HOST=0.0.0.0\n")

    conf = settings.load({"DIA_PORT": "2222"}, file)

    assert (conf.port, conf.host) == (2222, "0.0.0.0")


def test_given_names_the_fields_that_variables_set(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("DIA_PORT=1111\nOTHER=1\n")

    assert settings.given({"DIA_SAVE_OUTPUTS": "false"}, file) == {"port", "save_outputs"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DIA_PORT", "0", "DIA_PORT: expected `int` >= 1, not '0'"),
        ("DIA_PORT", "x", "DIA_PORT: expected `int`"),
        ("DIA_MAX_BATCH", "257", "DIA_MAX_BATCH: expected `int` <= 256"),
        ("DIA_ENGINE", "espeak", "DIA_ENGINE: must be one of auto, dia, preview, not 'espeak'$"),
        ("DIA_LOG_LEVEL", "", "DIA_LOG_LEVEL: must be one of debug, info, warning, error, not ''$"),
        (
            "DIA_TRUSTED_PROXIES",
            "10.0.0.0/33",
            "DIA_TRUSTED_PROXIES: .*networks.*, not '10.0.0.0/33'$",
        ),
        ("DIA_CORS_ORIGINS", "https://a.example/", "DIA_CORS_ORIGINS: expected origins like .*a.example/"),
        ("DIA_CORS_ORIGINS", "a.example", "DIA_CORS_ORIGINS: expected origins like"),
        ("DIA_ALLOWED_HOSTS", "http://a.example", "DIA_ALLOWED_HOSTS: expected names .*without scheme"),
        ("DIA_ALLOWED_HOSTS", "a.example:7860", "DIA_ALLOWED_HOSTS: expected names .*port"),
        ("DIA_RATE_LIMIT_GENERATE", "-1", "DIA_RATE_LIMIT_GENERATE: expected `int` >= 0"),
        ("DIA_SHOW_PROMPTS", "maybe", "DIA_SHOW_PROMPTS: must be one of true, false, not 'maybe'$"),
        ("DIA_DATA_DIR", "", "DIA_DATA_DIR: .*length >= 1"),
        ("DIA_STORAGE", "/data", "DIA_STORAGE: expected file:///folder, s3://"),
        ("DIA_STORAGE", "file://data", "DIA_STORAGE: expected file:///folder"),
        ("DIA_STORAGE", "s3://", "DIA_STORAGE: expected file:///folder"),
        ("DIA_STORAGE", "ftp://host/data", "DIA_STORAGE: expected file:///folder"),
        ("DIA_STORAGE", "s3://key:secret@bucket", "DIA_STORAGE: credentials and options come .*_KEY_ID$"),
        ("DIA_STORAGE", "az://box?sig=secret", "DIA_STORAGE: credentials and options come .*_KEY_ID$"),
    ],
)
def test_an_error_names_the_variable_and_the_limit(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(**{name: value})


@pytest.mark.parametrize("keys", ["", " ", ",", " , "])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "", "nas.lan"])
def test_empty_keys_stop_a_server_that_other_machines_can_reach(keys: str, host: str) -> None:
    with pytest.raises(SettingsError, match="DIA_API_KEYS is set but holds no key"):
        load(DIA_API_KEYS=keys, DIA_HOST=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "localhost"])
def test_on_loopback_empty_keys_mean_no_keys(host: str) -> None:
    assert load(DIA_API_KEYS="", DIA_HOST=host).api_keys == ()


def test_without_the_variable_a_server_may_listen_everywhere_without_keys() -> None:
    assert load(DIA_HOST="0.0.0.0").beyond_loopback


@pytest.mark.parametrize("url", ["", "file:///a%20b", "s3://bucket", "gs://bucket/a/b", "az://box/a"])
def test_storages_are_accepted(url: str) -> None:
    assert load(DIA_STORAGE=url).storage == url


def test_misspelt_variables_are_found() -> None:
    assert list(settings.unknown({"DIA_PORT": "1", "DIA_PROT": "1", "PATH": "/"})) == ["DIA_PROT"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://localhost:80"),
        ("::", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("nas.local", "http://nas.local:80"),
    ],
)
def test_the_url_is_one_that_a_browser_can_open(host: str, url: str) -> None:
    assert Settings(host=host, port=80).url == url


@pytest.mark.parametrize(
    ("terminal", "environ", "colors"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_the_user_says_otherwise(
    terminal: bool, environ: dict[str, str], colors: bool
) -> None:
    assert settings.wants_color(terminal=terminal, environ=environ) is colors


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_page_and_the_struct_agree(field: msgspec.structs.FieldInfo) -> None:
    rows = dict(re.findall(r"^\| `(DIA_\w+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
    default = default.lower() if isinstance(field.default, bool) else default

    assert (
        rows[settings.variable(field.name)]
        == f"{f'`{default}`' if default else 'none'} | {settings.describe(field)}"
    )


def test_the_page_has_no_other_settings() -> None:
    rows = re.findall(r"^\| `(DIA_\w+)`", DOCS.read_text(), re.MULTILINE)

    assert rows == [settings.variable(field.name) for field in FIELDS]
