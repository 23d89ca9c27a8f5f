"""Findings of the doctor on machines that lack something."""

import asyncio
import http.server
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from dia_server.configuration import default_config
from dia_server.db.engine import Database
from dia_server.db.preparation import prepare
from dia_server.doctor import audio, data, examine, machine, network, weights, whisper
from dia_server.doctor.finding import Finding, ok
from dia_server.engine.devices import Device
from dia_server.engine.espeak import Espeak
from dia_server.errors import AudioProcessingError
from dia_server.native import NativeWorker
from dia_server.services.config import ConfigService
from dia_server.settings import Settings
from tests.live import forks
from tests.live.server import Server
from tests.postgres import ON_POSTGRES


def one(findings: Iterable[Finding], subject: str) -> Finding:
    return next(finding for finding in findings if finding.subject == subject)


def changed(conf: Settings, **changes: object) -> Settings:
    return msgspec.structs.replace(conf, **changes)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "accelerators", list)
    monkeypatch.setattr(machine, "has_driver", lambda: False)


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(settings: Settings) -> None:
    def check_luck(conf: Settings) -> Iterator[Finding]:
        raise KeyError("horseshoe")

    findings = list(examine(settings, [check_luck, lambda _: [ok("Next", "fine")]]))

    assert [(finding.grade, finding.subject) for finding in findings] == [("wrong", "luck"), ("ok", "Next")]
    assert "horseshoe" in findings[0].text


def test_without_a_gpu_the_finding_names_the_engine_that_speaks(settings: Settings, no_driver: None) -> None:
    automatic = one(machine.check_gpu(changed(settings, engine="auto"), Path("/none")), "GPU")
    on_cpu = one(machine.check_gpu(changed(settings, engine="dia"), Path("/none")), "GPU")
    insisting = changed(settings, engine="dia", device="cuda:0")
    refused = one(machine.check_gpu(insisting, Path("/none")), "GPU")

    assert (automatic.grade, on_cpu.grade, refused.grade) == ("note", "note", "wrong")
    assert "preview" in automatic.text
    assert "CPU" in on_cpu.text
    assert "DIA_DEVICE" in refused.text


def test_a_gpu_without_a_driver_is_seen(settings: Settings, no_driver: None, tmp_path: Path) -> None:
    for name, kind, vendor in (("0", "0x030000", "0x10de"), ("1", "0x020000", "0x8086")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(f"{kind}\n")
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")

    assert "(NVIDIA), but no driver" in one(machine.check_gpu(settings, tmp_path), "GPU").text


def test_a_driver_that_torch_cannot_use_differs_from_no_driver(
    settings: Settings, no_driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: True)

    assert "CUDA_VISIBLE_DEVICES" in one(machine.check_gpu(settings), "GPU").text


def test_a_gpu_needs_memory_and_a_compiler(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (Device(f"cuda:{i}", "GPU", size * 2**30) for i, size in enumerate((4, 24)))
    monkeypatch.setattr(machine, "accelerators", lambda: [small, large])
    monkeypatch.setenv("PATH", "")

    findings = list(machine.check_gpu(changed(settings, engine="auto")))

    assert [finding.grade for finding in findings] == ["note", "ok", "note"]
    assert "24.0 GiB" in findings[1].text
    assert "gcc" in findings[2].text


def test_kernels_need_pythons_headers_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "accelerators", lambda: [Device("cuda:0", "GPU", 24 * 2**30)])
    conf = changed(settings, engine="dia", torch_compile=False)

    missing = list(machine.missing_for_kernels(headers=Path("/nowhere")))
    assert "Python.h" in missing
    assert "python3-dev" in one(machine.check_gpu(conf, missing_parts=missing), "Compiler").text


@pytest.mark.parametrize(
    ("device", "grades"),
    [("auto", ["ok"]), ("cuda", ["ok"]), ("cuda:0", ["ok"]), ("cuda:5", ["ok", "wrong"])],
)
def test_a_device_that_is_not_there_is_wrong(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, device: str, grades: list[str]
) -> None:
    monkeypatch.setattr(machine, "accelerators", lambda: [Device("cuda:0", "GPU", 24 * 2**30)])
    conf = changed(settings, engine="dia", device=device)

    findings = list(machine.check_gpu(conf, missing_parts=[]))

    assert [finding.grade for finding in findings] == grades
    assert grades == ["ok"] or "DIA_DEVICE=cuda:5" in findings[1].text
    assert len(list(machine.check_gpu(changed(conf, engine="preview")))) == 1  # it needs no GPU


def test_whisper_is_found_broken_or_misspelt(
    settings: Settings, whisper_folder: Path, tmp_path: Path
) -> None:
    whole = whisper.check_whisper(changed(settings, whisper_model=str(whisper_folder)))
    broken = whisper.check_whisper(changed(settings, whisper_model=str(tmp_path)))
    misspelt = whisper.check_whisper(changed(settings, whisper_model="bas"))

    assert [one(findings, "Whisper").grade for findings in (whole, broken, misspelt)] == [
        "ok",
        "wrong",
        "wrong",
    ]


def test_weights_are_found_in_a_folder_unless_files_are_missing(settings: Settings, tmp_path: Path) -> None:
    whole, broken = tmp_path / "dia", tmp_path / "codec"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    (whole / "model.safetensors").touch()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    (broken / "model-1.safetensors").touch()
    conf = changed(settings, engine="dia", model=str(whole), codec=str(broken))

    findings = list(weights.check_weights(conf))

    assert [(finding.grade, finding.subject) for finding in findings] == [("ok", "Dia"), ("wrong", "Codec")]
    assert findings[1].text.endswith("lacks model-2.safetensors.")


def doctor(cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIA_")}
    return forks.run(["-m", "dia_server", "doctor"], cwd, ours | variables)


def test_weights_in_the_hubs_cache_are_found_and_missing_ones_not_downloaded(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--a--dia"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).touch()
    variables = {"DIA_ENGINE": "dia", "DIA_MODEL": "a/dia", "DIA_CODEC": "a/codec", "HF_HOME": str(tmp_path)}

    online = doctor(tmp_path, **variables, HF_HUB_OFFLINE="0")
    offline = doctor(tmp_path, **variables, HF_HUB_OFFLINE="1")

    assert f"a/dia, in {snapshot}" in online.stdout
    assert "a/codec not downloaded yet; the first start downloads" in online.stdout
    assert "base not downloaded yet; the first transcription" in online.stdout
    assert "base not on this machine, and HF_HUB_OFFLINE forbids" in offline.stdout
    assert online.returncode == 0
    assert "HF_HUB_OFFLINE" in offline.stdout
    assert (offline.returncode, offline.stderr) == (1, "Error: 1 problem found.\n")
    assert not (tmp_path / "hub" / "models--a--codec").exists()
    assert not (tmp_path / "dia.sqlite3").exists()


def test_formats_and_espeak_are_tried(settings: Settings) -> None:
    assert "opus" in one(audio.check_formats(settings), "Formats").text
    assert [finding.grade for finding in audio.check_espeak(settings)] == ["ok"]


def test_a_missing_espeak_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(worker: NativeWorker[Espeak]) -> None:
        raise AudioProcessingError("espeak-ng cannot be loaded")

    monkeypatch.setattr(NativeWorker, "wait", refuse)

    (finding,) = audio.check_espeak(settings)

    assert finding.grade == "wrong"
    assert "Reinstall espeakng-loader" in finding.text


def test_a_data_folder_that_is_a_file_is_wrong(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    conf = changed(settings, data_dir=str(tmp_path / "file" / "data"))

    assert [finding.grade for finding in data.check_folder(conf)] == ["wrong"]


def test_a_data_folder_that_cannot_be_written_is_wrong(settings: Settings) -> None:
    conf = changed(settings, data_dir="/proc/data")  # where even root may not write

    assert one(data.check_folder(conf), "Data folder").grade == "wrong"


def test_a_storage_is_tried(settings: Settings, tmp_path: Path) -> None:
    assert list(data.check_storage(settings)) == []
    conf = changed(settings, storage=f"file://{tmp_path}")
    assert one(data.check_storage(conf), "Storage").grade == "ok"
    conf = changed(settings, storage=f"file://{tmp_path}/missing")
    finding = one(data.check_storage(conf), "Storage")
    assert (finding.grade, "there is no folder" in finding.text) == ("wrong", True)


@pytest.mark.parametrize(("free", "grade"), [(10**6, "wrong"), (10**9, "note"), (10**11, "ok")])
def test_disk_space_is_judged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, grade: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    assert one(data.check_folder(settings), "Disk").grade == grade


@pytest.mark.parametrize(
    ("revision", "grade"), [(None, "note"), ("0001", "note"), ("9999", "wrong")], ids=str
)
def test_the_databases_revision_is_judged(
    settings: Settings, tmp_path: Path, revision: str | None, grade: str
) -> None:
    with sqlite3.connect(tmp_path / "dia.sqlite3") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        if revision:
            database.execute("INSERT INTO alembic_version VALUES (?)", [revision])
    database.close()

    assert [finding.grade for finding in data.check_database(settings)] == [grade]


@ON_POSTGRES
def test_the_revision_of_a_postgresql_database_is_judged(settings: Settings, database_url: str) -> None:
    conf = changed(settings, database_url=database_url)

    (before,) = data.check_database(conf)
    asyncio.run(prepare(database_url))
    (after,) = data.check_database(conf)

    assert (before.grade, after.grade) == ("note", "ok")


def test_a_postgresql_server_that_is_away_is_wrong(settings: Settings) -> None:
    conf = changed(settings, database_url="postgresql+psycopg://dia@/dia?host=/nowhere")

    (finding,) = data.check_database(conf)

    assert finding.grade == "wrong"
    assert "PostgreSQL cannot be used" in finding.text


def test_a_database_is_found_by_a_relative_address(tmp_path: Path) -> None:
    """SQLite resolves it against the current folder."""
    url = "sqlite+aiosqlite:///own.sqlite3"
    before = doctor(tmp_path, DIA_DATABASE_URL=url)
    upgrade = ["-m", "dia_server", "db", "upgrade", f"--database-url={url}"]
    forks.run(upgrade, tmp_path, os.environ).check_returncode()
    after = doctor(tmp_path, DIA_DATABASE_URL=url)

    assert f"{tmp_path / 'own.sqlite3'} will be created" in before.stdout
    assert re.search(r"^ok +Database: +at revision \d+$", after.stdout, re.MULTILINE)


async def test_variables_without_effect_are_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.sqlalchemy_url)
    await database.upgrade()
    stored = ConfigService(database.sessions, default_config(settings))
    await stored.update({"save_outputs": True, "show_prompts": True, "whisper_model_size": "tiny"})
    await database.close()
    monkeypatch.setenv("DIA_SAVE_OUTPUTS", "false")
    monkeypatch.setenv("DIA_SHOW_PROMPTS", "true")

    _, finding = data.check_database(changed(settings, show_prompts=True))

    assert (finding.grade, finding.text) == (
        "note",
        "DIA_SAVE_OUTPUTS has no effect: save_outputs is stored as true. "
        "DELETE /config/save_outputs removes that value.",
    )


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_database_is_wrong(settings: Settings, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dia.sqlite3").write_bytes(content)

    (finding,) = data.check_database(settings)

    assert finding.grade == "wrong"
    assert "file is not a database. Put a backup in its place" in finding.text


def test_a_database_in_memory_is_noted(settings: Settings) -> None:
    conf = changed(settings, database_url="sqlite+aiosqlite://")

    assert [finding.grade for finding in data.check_database(conf)] == ["note"]


def test_a_running_server_is_recognized_and_its_database_is_current(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        report = doctor(tmp_path, **server.variables)

    assert "dia-server 0.1.0 runs there, and is healthy" in report.stdout
    assert "at revision" in report.stdout
    assert (report.returncode, report.stderr) == (0, "")


def test_a_port_that_another_program_has_is_wrong(settings: Settings) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "healthy"}')

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.handle_request)
        thread.start()
        (finding,) = network.check_port(changed(settings, port=stranger.server_port))
        thread.join()

    assert finding.grade == "wrong"
    assert "DIA_PORT" in finding.text


def test_an_open_server_without_keys_is_noted(settings: Settings) -> None:
    here = one(network.check_keys(settings), "Keys")
    everywhere = one(network.check_keys(changed(settings, host="0.0.0.0")), "Keys")
    guarded = one(network.check_keys(changed(settings, host="0.0.0.0", api_keys=("secret",))), "Keys")

    assert (here.grade, everywhere.grade, guarded.grade) == ("ok", "note", "ok")
    assert "DIA_API_KEYS" in everywhere.text
    assert "secret" not in guarded.text


def test_settings_that_admit_other_sites_are_named(settings: Settings) -> None:
    usual = one(network.check_sites(settings), "Sites")
    named = one(network.check_sites(changed(settings, cors_origins=("https://chat.example",))), "Sites")
    keys = one(network.check_sites(changed(settings, api_keys=("secret",), allowed_hosts=("*",))), "Sites")
    wide = list(network.check_sites(changed(settings, cors_origins=("*",), allowed_hosts=("*",))))

    assert {"DIA_CORS_ORIGINS", "DIA_ALLOWED_HOSTS"} <= {*re.findall(r"DIA_[A-Z_]+", usual.text)}
    assert "https://chat.example" in named.text
    assert "any origin" in keys.text
    assert [finding.grade for finding in (usual, named, keys, *wide)] == ["ok", "ok", "ok", "note", "note"]


def test_a_free_port_is_ok(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    assert [finding.grade for finding in network.check_port(changed(settings, port=port))] == ["ok"]
