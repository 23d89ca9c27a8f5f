"""Checks that deploy/, the Dockerfile and compose.yaml agree with the server and with each other.

Tests have no container engine, so only the files' contents are checked; test_image.py runs the steps.
"""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server import settings
from dia_server.services.voices.prompt_folder import MAX_AUDIO
from dia_server.serving import IMAGE_MARK, KILL_AFTER_S, MAX_CONNECTIONS, SPARE_FILES
from dia_server.settings import Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "dia-server.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
VARIABLES = {settings.variable(field.name) for field in msgspec.structs.fields(Settings)}
LONGEST_SHUTDOWN_S = Settings().shutdown_timeout + KILL_AFTER_S


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_compose_builds_a_stage_for_each_profile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))

    for name, service in compose()["services"].items():
        assert service["profiles"] == [name]
        assert service["build"]["target"] == name
        assert name in stages
        assert service["build"].get("args", {}).keys() <= {"TORCH_INDEX"}
    assert "ARG TORCH_INDEX" in DOCKERFILE


def test_only_the_gpu_profile_reserves_gpus() -> None:
    services = compose()["services"]

    assert "deploy" not in services["cpu"]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_containers_have_few_rights_and_keep_their_data() -> None:
    volumes = compose()["volumes"]
    for service in compose()["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert service["ports"] == ["127.0.0.1:7860:7860"]
        volume, _, folder = service["volumes"][0].partition(":")
        assert volume in volumes
        assert folder == service["environment"]["DIA_DATA_DIR"] == "/data"


def test_stop_timeouts_exceed_the_longest_shutdown() -> None:
    for service in compose()["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > LONGEST_SHUTDOWN_S
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    assert int(unit["Service"]["TimeoutStopSec"]) > LONGEST_SHUTDOWN_S
    assert unit["Service"]["KillMode"] == "mixed"


@pytest.mark.parametrize(
    "file",
    ["Dockerfile", "compose.yaml", "deploy/dia-server.service", "deploy/nginx.conf", "deploy/Caddyfile"],
)
def test_only_settings_that_exist_are_named(file: str) -> None:
    assert set(re.findall(r"\bDIA_[A-Z_]+\b", (ROOT / file).read_text())) <= VARIABLES


def test_the_image_copies_existing_files_and_runs_unprivileged() -> None:
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{name}\n" in ignored for name in copied)
    assert instructions("USER")[-1] == "dia"
    (check,) = instructions("HEALTHCHECK")
    assert "/health/live" in check
    command = json.loads(check[check.index("[") :])
    compile(command[2], "HEALTHCHECK", "exec")


def test_the_image_is_marked_and_sets_no_keys() -> None:
    assert f"RUN touch /opt/dia-server/{IMAGE_MARK.name}\n" in DOCKERFILE
    for service in compose()["services"].values():
        assert "DIA_API_KEYS" not in service["environment"]  # passed on empty, it would stop the start


def test_the_steps_of_the_image_are_shell() -> None:
    for step in instructions("RUN"):
        assert shlex.split(step)
        subprocess.run(["sh", "-n", "-c", step], check=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_allows_a_file_for_every_connection() -> None:
    limit = re.search(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.MULTILINE)

    assert limit is not None
    assert int(limit[1]) >= MAX_CONNECTIONS + SPARE_FILES


def test_proxies_let_uploads_pass() -> None:
    size = MAX_AUDIO // 1024 // 1024

    assert f"client_max_body_size {size}m;" in (ROOT / "deploy" / "nginx.conf").read_text()
    assert f"max_size {size}MiB" in (ROOT / "deploy" / "Caddyfile").read_text()


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert "ExecStart=/opt/dia-server/bin/dia-server serve\n" in text
    unit.write_text(
        text.replace("/opt/dia-server/bin/dia-server serve", "/bin/true")
    )  # systemd-analyze checks that the file exists

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )

    assert (verified.returncode, verified.stderr) == (0, "")


async def test_the_dashboard_asks_for_metrics_that_exist(client: AsyncTestClient[Litestar]) -> None:
    await client.post("/generate", json={"text": "Hi"})
    page = (await client.get("/metrics")).text
    there = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    asked = {
        name.removesuffix("_bucket")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:dia|process)_\w+", target["expr"])
    }

    assert asked - there == set()
    assert {name for name in there if name.startswith("dia_")} - asked == set()  # and leaves none out


def test_the_dashboard_is_one_that_grafana_can_read() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["source", "job", "instance"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    assert len(set(places)) == len(places)
