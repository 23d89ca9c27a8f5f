"""Checks that deploy/, the Dockerfile and the compose files agree with the server and with each other.

Tests have no container engine, so only the files' contents are checked; test_image.py runs the steps.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from ipaddress import ip_address, ip_network
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


def compose(file: str = "compose.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return loaded


def servers() -> dict[str, Any]:
    """Return the services of compose.servers.yaml that are dia-servers."""
    services = compose("compose.servers.yaml")["services"]
    return {name: service for name, service in services.items() if name.startswith("dia-")}


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_compose_builds_a_stage_for_each_profile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))

    for name, service in compose()["services"].items():
        assert service["profiles"] == [name]
        assert service["build"]["target"] == name
        assert name in stages
        assert service["build"].get("args", {}).keys() <= {"TORCH_INDEX"}
    assert {'TORCH_INDEX=""', 'EXTRAS=""'} <= set(instructions("ARG"))


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


def test_several_servers_share_all_but_their_data_folder() -> None:
    file = compose("compose.servers.yaml")
    first, second = servers().values()

    def common(service: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in service.items() if key not in {"volumes", "networks"}}

    assert common(first) == common(second)
    assert {first["volumes"][0], second["volumes"][0]} == {"data-1:/data", "data-2:/data"}
    mounted = {
        volume.partition(":")[0] for one in file["services"].values() for volume in one.get("volumes", [])
    }
    assert {name for name in mounted if "/" not in name} == set(file["volumes"])
    for service in (first, second):
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert "ports" not in service
        assert "/health/ready" in service["healthcheck"]["test"][-1]
        compile(service["healthcheck"]["test"][-1], "healthcheck", "exec")
        assert service["depends_on"].keys() <= file["services"].keys()


def test_several_servers_require_keys_and_passwords() -> None:
    for name, service in compose("compose.servers.yaml")["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|_USER$", variable) and variable != "POSTGRES_USER":
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (name, variable)
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    environment = servers()["dia-1"]["environment"]
    assert {"DIA_API_KEYS", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"} <= environment.keys()
    settings.load({name: value for name, value in environment.items() if name.startswith("DIA_")})


def test_the_proxy_knows_the_addresses_of_the_servers() -> None:
    file = compose("compose.servers.yaml")
    hosts = dict(host.split(":") for host in file["services"]["nginx"]["extra_hosts"])
    configuration = (ROOT / "deploy" / "nginx-servers.conf").read_text()

    assert hosts == {
        name: service["networks"]["default"]["ipv4_address"] for name, service in servers().items()
    }
    assert set(re.findall(r"^ +server ([\w-]+):7860", configuration, re.MULTILINE)) == set(hosts)
    (network,) = file["networks"]["default"]["ipam"]["config"]
    for service in servers().values():
        assert service["environment"]["DIA_TRUSTED_PROXIES"] == network["subnet"]
    assert all(ip_address(address) in ip_network(network["subnet"]) for address in hosts.values())
    assert "./deploy/nginx-servers.conf:" in file["services"]["nginx"]["volumes"][0]


def requirements(folder: Path, extras: str) -> list[str]:
    """Run the image's step that lists the requirements, with the build argument EXTRAS; return them."""
    (step,) = (
        step for step in instructions("RUN") if "requirements.txt" in step and "import sys, tomllib" in step
    )
    shutil.copy(ROOT / "pyproject.toml", folder)
    step = step.replace("python ", f"{sys.executable} ", 1)
    subprocess.run(["sh", "-c", step], cwd=folder, env=os.environ | {"EXTRAS": extras}, check=True)
    return (folder / "requirements.txt").read_text().splitlines()


def test_the_image_has_the_drivers_of_postgresql_and_of_object_storage(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    assert requirements(tmp_path, "") == project["dependencies"] + extras["postgres"] + extras["storage"]


def test_an_image_may_have_further_extras(tmp_path: Path) -> None:
    plain = requirements(tmp_path, "")

    (ray,) = set(requirements(tmp_path, "cluster storage")) - set(plain)
    assert ray.startswith("ray[serve]")
    assert len(requirements(tmp_path, "cluster storage")) == len(plain) + 1
    with pytest.raises(subprocess.CalledProcessError):
        requirements(tmp_path, "clutser")


def test_stop_timeouts_exceed_the_longest_shutdown() -> None:
    for service in [*compose()["services"].values(), *servers().values()]:
        assert int(service["stop_grace_period"].removesuffix("s")) > LONGEST_SHUTDOWN_S
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    assert int(unit["Service"]["TimeoutStopSec"]) > LONGEST_SHUTDOWN_S
    assert unit["Service"]["KillMode"] == "mixed"


@pytest.mark.parametrize(
    "file", ["Dockerfile", "compose*.yaml", "deploy/*.*", "deploy/Caddyfile", "deploy/kubernetes/**/*.*"]
)
def test_only_settings_that_exist_are_named(file: str) -> None:
    files = list(ROOT.glob(file))
    assert files
    for path in files:
        assert set(re.findall(r"\bDIA_[A-Z_]+\b", path.read_text())) <= VARIABLES, path


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

    for name in ("nginx.conf", "nginx-servers.conf"):
        assert f"client_max_body_size {size}m;" in (ROOT / "deploy" / name).read_text()
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
