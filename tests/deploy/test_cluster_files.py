"""Checks the texts of compose.cluster.yaml and deploy/kubernetes/ against the server and each other."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from litestar import Litestar
from litestar.testing import AsyncTestClient
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dia_server import __version__, cli, settings
from dia_server.serving import KILL_AFTER_S
from dia_server.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FILES = sorted([*ROOT.glob("compose*.yaml"), *(ROOT / "deploy").rglob("*.yaml")])
IGNORED = (ROOT / ".gitignore").read_text().splitlines()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NOWHERE = Path("/nonexistent/.env")
SECRET = re.compile(r"KEY|PASSWORD|TOKEN$|DATABASE_URL|SECRET", re.IGNORECASE)
"""Part of a variable's name whose value must not be in a file."""


def load(file: Path) -> list[Any]:
    return list(yaml.safe_load_all(file.read_text()))


def texts(value: Any) -> Iterator[str]:
    """Yield each string inside a parsed YAML document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def commands(program: str) -> list[list[str]]:
    """Return the arguments of the calls of `program` in the shell commands of each file."""
    found = []
    for file in FILES:
        # an anchor's command is there once for each service
        for text in dict.fromkeys(text for text in texts(load(file)) if f"{program} " in text):
            for part in text.split(" && "):
                words = shlex.split(part.removeprefix("exec "))
                if words[0] == program:
                    found.append(words[1:])
    return found


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return the parameters of a `dia-server` command; raises UsageError for any that it does not have."""
    context = click.Context(cli.main)
    name, command, rest = cli.main.resolve_command(context, arguments)
    assert command is not None
    return command.make_context(name, rest, parent=context).params


def settings_of(lines: str) -> Settings:
    """Return the settings that the DIA_ variables among KEY=VALUE lines give."""
    pairs = dict(line.split("=", 1) for line in lines.splitlines() if line and not line.startswith("#"))
    assert not list(settings.unknown(pairs))
    return settings.load({name: value for name, value in pairs.items() if name.startswith("DIA_")}, NOWHERE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_is_yaml(file: Path) -> None:
    assert all(isinstance(document, dict) and document for document in load(file))


def test_every_command_is_one_of_the_command_line() -> None:
    found = commands("dia-server")

    assert sorted(words[0] for words in found) == ["engine", "engine", "serve", "serve"]
    for words in found:
        flags = parsed(words)
        replicas = flags.pop("replicas", None)
        given = {settings.variable(name): value for name, value in flags.items() if value is not None}
        settings.load(given, NOWHERE)
        if replicas is not None:
            cli._replica_count(replicas)


def test_servers_offer_ray_no_resources() -> None:
    found = commands("ray")

    starts = [words for words in found if words[0] == "start"]
    assert len(starts) == 4
    assert all({"--num-cpus=0", "--num-gpus=0"} <= set(words) for words in starts)
    assert [words for words in found if words not in starts] == [["stop"]] * 2


# compose.cluster.yaml

COMPOSE: dict[str, Any] = load(ROOT / "compose.cluster.yaml")[0]
BASE: dict[str, Any] = load(ROOT / "compose.servers.yaml")[0]


def merged(below: Any, above: Any) -> Any:
    """Return the mapping `below` with the values of `above`, as Compose does for what these files have."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def compose_services() -> dict[str, dict[str, Any]]:
    """Return the services, with what they extend."""
    services = {}
    for name, service in COMPOSE["services"].items():
        if extended := service.get("extends"):
            assert extended == {"file": "compose.servers.yaml", "service": name}
            service = merged(BASE["services"][name], {k: v for k, v in service.items() if k != "extends"})
        services[name] = service
    return services


SERVICES = compose_services()
OWN = {name: service for name, service in SERVICES.items() if service["image"].startswith("dia-server:")}
SERVERS = {name: service for name, service in OWN.items() if name.startswith("dia-")}


def test_the_cluster_has_the_services_and_data_of_several_servers() -> None:
    assert SERVICES.keys() - BASE["services"].keys() == {"ray-head", "ray-engine", "ray-deploy"}
    assert BASE["services"].keys() <= SERVICES.keys()
    assert COMPOSE["networks"]["default"] == BASE["networks"]["default"]
    assert COMPOSE["volumes"].keys() - BASE["volumes"].keys() == {"engine", "head"}
    assert BASE["volumes"].keys() <= COMPOSE["volumes"].keys()


def test_services_name_what_the_file_declares() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys(), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert {volume for volume in volumes if "/" not in volume} <= COMPOSE["volumes"].keys(), name
        # versions of Compose differ in whether the extended service's dependencies count
        assert service.get("depends_on") == COMPOSE["services"][name].get("depends_on"), name
        for other, wanted in service.get("depends_on", {}).items():
            checked = SERVICES[other].get("healthcheck", {"disable": True})
            assert "disable" not in checked or wanted["condition"] != "service_healthy", name


def test_every_process_names_the_head_by_its_service_and_port() -> None:
    assert "--port=6379" in SERVICES["ray-head"]["command"]
    addresses = {word for text in texts(COMPOSE) for word in re.findall(r"[\w-]+:6379", text)}
    assert addresses == {"ray-head:6379"}
    for service in SERVERS.values():
        assert service["environment"]["DIA_CLUSTER"] == "ray-head:6379"
    assert "--address=ray-head:6379" in SERVICES["ray-engine"]["command"]


def test_only_servers_reach_both_rays_ports_and_the_database() -> None:
    for name, service in SERVICES.items():
        networks = set(service.get("networks", ["default"]))
        expected = {"default", "ray"} if name in SERVERS else {"ray"} if name in OWN else {"default"}
        assert networks == expected, name
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"nginx"}
    assert SERVICES["nginx"]["ports"] == ["127.0.0.1:7860:80"]


def test_one_image_with_ray_runs_everything() -> None:
    images = [(service["image"], service["build"]) for service in OWN.values()]

    assert len(OWN) == 5
    assert all(image == images[0] for image in images)
    assert images[0][1]["target"] == "gpu"
    assert images[0][1]["args"]["EXTRAS"] in EXTRAS


def test_containers_of_the_cluster_have_few_rights() -> None:
    for service in OWN.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]


def test_rays_token_is_a_file_that_git_ignores() -> None:
    assert COMPOSE["secrets"] == {"ray-token": {"file": "./ray-token"}}
    assert "/ray-token" in IGNORED
    for service in OWN.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{service['secrets'][0]}"
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and variable != "DIA_DATABASE_URL":
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (name, variable)


def test_the_servers_of_the_cluster_read_their_settings() -> None:
    for service in [*SERVERS.values(), SERVICES["ray-deploy"]]:
        given = {name: value for name, value in service["environment"].items() if name.startswith("DIA_")}
        assert settings.load(given, NOWHERE).engine == "dia"


def test_object_stores_fit_into_shared_memory() -> None:
    for service in OWN.values():
        (size,) = re.findall(r"--object-store-memory=(\d+)", " ".join(service["command"]))
        assert int(size) < int(service["shm_size"].removesuffix("m")) * 1024**2


def test_rays_head_keeps_its_state_in_a_volume() -> None:
    head = SERVICES["ray-head"]

    assert head["volumes"] == ["head:/data"]
    assert head["environment"]["RAY_gcs_storage_path"].startswith("/data/")


def test_a_gpu_is_reserved_for_the_engines_only() -> None:
    assert [name for name, service in SERVICES.items() if "deploy" in service] == ["ray-engine"]


def test_health_checks_of_the_cluster_are_python() -> None:
    for name in ("ray-head", "ray-engine"):
        check = SERVICES[name]["healthcheck"]["test"]
        assert check[:3] == ["CMD", "python", "-c"]
        compile(check[3], "healthcheck", "exec")


# deploy/kubernetes/

KUSTOMIZATION: dict[str, Any] = load(KUBERNETES / "kustomization.yaml")[0]
COMPONENT: dict[str, Any] = load(KUBERNETES / "redis" / "kustomization.yaml")[0]
OBJECTS: list[dict[str, Any]] = [
    document for file in KUSTOMIZATION["resources"] for document in load(KUBERNETES / file)
] + [document for file in COMPONENT["resources"] for document in load(KUBERNETES / "redis" / file)]
PATCHES = [load(KUBERNETES / "redis" / patch["path"])[0] for patch in COMPONENT["patches"]]


def objects(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


(CLUSTER,) = objects("RayCluster").values()
GROUPS = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
TEMPLATES: list[dict[str, Any]] = [
    one["spec"]["template"] for one in OBJECTS if "template" in one.get("spec", {})
] + [group["template"] for group in GROUPS]
CONTAINERS = [container for template in TEMPLATES for container in template["spec"]["containers"]]


def labelled(selector: dict[str, str]) -> list[dict[str, Any]]:
    """Return the pod templates that a selector of labels matches."""
    return [template for template in TEMPLATES if selector.items() <= template["metadata"]["labels"].items()]


def port_names(templates: list[dict[str, Any]]) -> set[str]:
    return {
        port["name"]
        for template in templates
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
    }


def test_the_kustomizations_use_every_file() -> None:
    for folder, used in (
        (KUBERNETES, KUSTOMIZATION["resources"]),
        (KUBERNETES / "redis", COMPONENT["resources"] + [patch["path"] for patch in COMPONENT["patches"]]),
    ):
        assert {file.name for file in folder.glob("*.yaml")} == {*used, "kustomization.yaml"}
    assert "\n# components: [redis]\n" in (KUBERNETES / "kustomization.yaml").read_text()


def test_no_secret_is_in_the_files_and_each_is_in_the_example() -> None:
    (secrets,) = KUSTOMIZATION["secretGenerator"]
    example = (KUBERNETES / "secrets.env.example").read_text()
    pairs = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    variables = [variable for container in CONTAINERS for variable in container.get("env", [])]
    references = [variable["valueFrom"]["secretKeyRef"] for variable in variables if "valueFrom" in variable]
    references.append(
        PATCHES[0]["spec"]["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    )

    assert secrets["envs"] == ["secrets.env"]
    assert "/deploy/kubernetes/secrets.env" in IGNORED
    assert set(pairs.values()) == {""}
    assert {reference["key"] for reference in references} == pairs.keys()
    assert {reference["name"] for reference in references} == {secrets["name"]}
    assert not objects("Secret")
    assert not [one for one in variables if SECRET.search(one["name"]) and "value" in one]
    assert not re.findall(r"://[^/\s]*:[^/\s]*@", "".join(file.read_text() for file in FILES))


def test_kuberay_finds_the_token_by_its_name() -> None:
    (secrets,) = KUSTOMIZATION["secretGenerator"]

    assert CLUSTER["spec"]["authOptions"] == {"mode": "token", "secretName": secrets["name"]}
    assert secrets["options"] == {"disableNameSuffixHash": True}
    assert "\nauth_token=" in (KUBERNETES / "secrets.env.example").read_text()


def test_the_settings_of_the_pods_are_settings() -> None:
    (config,) = KUSTOMIZATION["configMapGenerator"]
    conf = settings_of((KUBERNETES / config["envs"][0]).read_text())

    (port,) = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert conf.cluster == f"{CLUSTER['metadata']['name']}-head-svc:{port['containerPort']}"
    assert conf.engine == "dia"
    assert not SECRET.search((KUBERNETES / config["envs"][0]).read_text().replace("DIA_API_KEYS", ""))
    for container in CONTAINERS:
        for source in container.get("envFrom", []):
            assert source == {"configMapRef": {"name": config["name"]}}


def test_the_cluster_has_the_ray_of_the_extra() -> None:
    (requirement,) = EXTRAS["cluster"]
    version = Version(CLUSTER["spec"]["rayVersion"])

    assert version in SpecifierSet(requirement.removeprefix("ray[serve]"))
    assert version >= Version("2.52"), "before, Ray has no tokens"


def test_the_autoscaler_may_place_as_many_engines_as_the_job_asks_for() -> None:
    (workers,) = CLUSTER["spec"]["workerGroupSpecs"]
    (deploy,) = (words for words in commands("dia-server") if words[-1] != "auto" and words[0] == "engine")
    count = cli._replica_count(parsed(deploy)["replicas"])

    assert count is not None
    assert (workers["minReplicas"], workers["maxReplicas"]) == (count.least, count.most)
    resources = workers["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
    assert CLUSTER["spec"]["enableInTreeAutoscaling"]
    assert CLUSTER["spec"]["autoscalerOptions"]["version"] == "v2"
    assert all("restartPolicy" not in group["template"]["spec"] for group in GROUPS)
    head = CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["num-gpus"], head["include-dashboard"]) == ("0", "0", "false")


def test_pods_run_unprivileged_and_mount_what_they_declare() -> None:
    (user,) = re.findall(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())

    for template in TEMPLATES:
        spec = template["spec"]
        own = spec["containers"][0]["image"] == "dia-server"
        # variables such as DIA_SERVER_PORT, which Kubernetes sets for its services, are no settings
        assert spec["enableServiceLinks"] is False
        # KubeRay's autoscaler, beside Ray's head, needs the account
        assert spec.get("automountServiceAccountToken") is (None if template is TEMPLATES[-2] else False)
        context = spec["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == context["fsGroup"] == (int(user) if own else 999)
        declared = {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() <= declared or not own
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            if own:
                assert {"/tmp", "/data"} <= set(mounts.values())


def test_the_images_of_the_pods_are_replaced_together() -> None:
    (image,) = KUSTOMIZATION["images"]

    assert {container["image"] for container in CONTAINERS} == {image["name"], "redis:7.4"}
    assert image["newTag"] == __version__


async def test_probes_ask_routes_that_need_no_key(client: AsyncTestClient[Litestar]) -> None:
    (server,) = objects("Deployment")["dia-server"]["spec"]["template"]["spec"]["containers"]
    probes = {name: probe["httpGet"] for name, probe in server.items() if name.endswith("Probe")}

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    for probe in probes.values():
        assert (await client.get(probe["path"], headers={"Authorization": ""})).status_code == 200
        assert probe["port"] in {port["name"] for port in server["ports"]}
    assert server["ports"] == [{"name": "http", "containerPort": Settings().port}]


def test_services_and_policies_select_pods_and_their_ports() -> None:
    for service in objects("Service").values():
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= port_names(
            labelled(service["spec"]["selector"])
        )
    for policy in objects("NetworkPolicy").values():
        selected = labelled(policy["spec"]["podSelector"]["matchLabels"])
        assert selected, policy
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule.get("ports", [])} <= port_names(selected)
            assert all(labelled(peer["podSelector"]["matchLabels"]) for peer in rule.get("from", []))
    ray = {id(template) for template in labelled({"ray-cluster": CLUSTER["metadata"]["name"]})}
    assert ray == {id(one) for one in TEMPLATES if one["spec"]["containers"][0]["image"] == "dia-server"}
    for kind in ("Deployment", "StatefulSet"):
        for one in objects(kind).values():
            assert labelled(one["spec"]["selector"]["matchLabels"]) == [one["spec"]["template"]]


def test_redis_is_where_ray_looks_for_it() -> None:
    cluster, server = PATCHES
    name, _, port = cluster["spec"]["gcsFaultToleranceOptions"]["redisAddress"].partition(":")

    assert cluster["metadata"]["name"] == CLUSTER["metadata"]["name"]
    assert objects("Service")[name]["spec"]["ports"][0]["port"] == int(port)
    patched = server["spec"]["template"]["spec"]["containers"][0]["name"]
    assert (
        patched
        == objects(server["kind"])[server["metadata"]["name"]]["spec"]["template"]["spec"]["containers"][0][
            "name"
        ]
    )


def test_kubernetes_waits_longer_than_the_longest_shutdown() -> None:
    spec = objects("Deployment")["dia-server"]["spec"]["template"]["spec"]
    pause = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])

    assert spec["terminationGracePeriodSeconds"] > pause + Settings().shutdown_timeout + KILL_AFTER_S


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("redis", [False, True])
def test_kubectl_renders_the_kustomization(tmp_path: Path, redis: bool) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    example = (folder / "secrets.env.example").read_text()
    (folder / "secrets.env").write_text(re.sub("=$", "=secret", example, flags=re.MULTILINE))
    if redis:
        file = folder / "kustomization.yaml"
        file.write_text(file.read_text().replace("\n# components", "\ncomponents"))

    text = subprocess.run(
        ["kubectl", "kustomize", str(folder)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout

    rendered = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
    assert ("Secret", "dia-secrets") in rendered
    assert {one["metadata"].get("namespace", "dia") for one in rendered.values()} == {"dia"}
    images = set(re.findall(r"image: (\S+)", text))
    assert images == {"registry.example.org/dia-server:0.1.0"} | ({"redis:7.4"} if redis else set())
    (config,) = (name for kind, name in rendered if kind == "ConfigMap")
    assert text.count(f"name: {config}\n") == 3  # itself, the servers and the Job
    assert ("gcsFaultToleranceOptions" in rendered["RayCluster", "dia"]["spec"]) is redis
    assert ("RAY_gcs_rpc_server_reconnect_timeout_s" in text) is redis
