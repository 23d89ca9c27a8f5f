"""A real Ray cluster on loopback: a head, and a node that has the engines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tests.live.server import free_port

SLOTS = 8
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
CPUS = 4
"""CPUs of the node; each engine takes one."""
MEMORY = {"object_store_memory": 100_000_000}
PREVIEW = {"DIA_ENGINE": "preview", "DIA_MAX_BATCH": str(SLOTS)}


@contextmanager
def ray_cluster(cpus: int = CPUS, **environment: str) -> Iterator[str]:
    """Run a cluster; yield the address of its head. Addresses start at 127.0.0.2: Ray replaces 127.0.0.1."""
    from ray.cluster_utils import Cluster

    os.environ |= ENVIRONMENT | environment
    head = {"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False, **MEMORY}
    head |= {"gcs_server_port": free_port()}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=cpus, node_ip_address="127.0.0.3", **MEMORY)
        yield cluster.address
    finally:
        cluster.shutdown()


def deployment(
    address: str, replicas: str, settings: dict[str, str], prepare: str = ""
) -> subprocess.Popen[bytes]:
    """Start `dia-server engine`, which ends once the engines are ready; `prepare` may change constants."""
    program = "from dia_server import cli; from dia_server.engine.cluster import deploy\n{}\ncli.main()"
    command = [sys.executable, "-c", program.format(prepare), "engine"]
    return subprocess.Popen(
        [*command, "--cluster", address, "--replicas", replicas],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
    )


def deploy(address: str, replicas: str, settings: dict[str, str] = PREVIEW) -> bytes:
    """Run `dia-server engine`; return what it says."""
    process = deployment(address, replicas, settings)
    said, _ = process.communicate()
    assert process.returncode == 0
    return said


def replicas() -> list[int]:
    """Return the process ids of the engines."""
    return processes(b"ray::ServeReplica:dia:engine")


def processes(name: bytes) -> list[int]:
    """Return the ids of the processes whose command contains `name`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name in (folder / "cmdline").read_bytes().partition(b" --")[0]:
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


@contextmanager
def restarted_head(address: str) -> Iterator[None]:
    """Kill Ray's head (its global control service), and start it again as it was, until the block is left."""
    port = f"--gcs_server_port={address.rpartition(':')[2]}"
    (head,) = (one for one in psutil.process_iter(["cmdline"]) if is_head(one.info["cmdline"], port))
    command, environment = head.cmdline(), head.environ()
    head.kill()
    psutil.wait_procs([head], timeout=30)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as again:
        try:
            yield
        finally:
            again.kill()


def is_head(command: list[str] | None, port: str) -> bool:
    return command is not None and port in command and command[0].endswith("gcs_server")
