"""Clients that stop receiving without closing their connection."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live import impatient_server
from tests.live.clients import Reader
from tests.live.impatient_server import GONE_AFTER_S
from tests.live.jobs import status
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the options")

TEXT = "x" * 4000
"""Takes the server 20 s: segments wait for its only slot."""
STREAM = {"type": "generate", "data": {"text": TEXT, "stream": True, "speed": 0.25}}

CLIENT = """
import sys
from tests.waiting import wait_until
from tests.live.websocket import WebSocketClient
client = WebSocketClient(int(sys.argv[2]), "/ws/generate", host=sys.argv[1])
if sys.argv[3]:
    client.send({"type": "generate", "data": {"text": sys.argv[3]}})
    print(client.receive()["job_id"], flush=True)
else:
    print("connected", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(
        tmp_path_factory.mktemp("server"),
        command=(sys.executable, impatient_server.__file__, "serve"),
        host="0.0.0.0",
        max_batch=1,
        rate_limit_generate=0,
        rate_limit_jobs=0,
    ) as server:
        yield server


def connections(port: int, *, to: str = "", to_port: int | None = None) -> int:
    """Return the number of established connections of `port` to an address or a port."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        own, other, state = (field.split(":") for field in line.split()[1:4])
        address = socket.inet_ntoa(bytes.fromhex(other[0])[::-1])
        if int(own[1], 16) == port and state == ["01"]:
            count += address == to or int(other[1], 16) == to_port
    return count


def test_the_job_of_a_client_that_stops_reading_is_cancelled(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        client.limit_receive_buffer()
        client.send(STREAM)
        job_id = client.receive()["job_id"]
        wait_until(lambda: status(server, job_id) == "cancelled")

    assert "Traceback" not in server.log


def test_the_connection_of_a_stream_that_is_not_read_is_closed(server: Server) -> None:
    with Reader(server, TEXT) as reader:
        wait_until(lambda: connections(server.port, to_port=reader.port) == 1)
        wait_until(lambda: connections(server.port, to_port=reader.port) == 0)

    assert "Traceback" not in server.log


def test_the_job_of_a_client_that_reads_slowly_goes_on(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        client.limit_receive_buffer()
        client.send(STREAM)
        job_id = client.receive()["job_id"]
        client.read_for(2 * GONE_AFTER_S, per_second=200_000)

        assert status(server, job_id) == "processing"


class Network:
    """A network namespace with an address of its own, like another machine; needs root."""

    def __init__(self) -> None:
        number = os.getpid()
        self._name = f"dia{number}"
        self._own, self._theirs = f"diaA{number}", f"diaB{number}"
        subnet = f"10.254.{number % 256}"
        self.host, self.client = f"{subnet}.1", f"{subnet}.2"

    def __enter__(self) -> "Network":
        if subprocess.run(["ip", "netns", "add", self._name], check=False).returncode:
            pytest.skip("can make no network")
        self._ip(f"link add {self._own} type veth peer name {self._theirs} netns {self._name}")
        self._ip(f"address add {self.host}/24 dev {self._own}")
        self._ip(f"link set {self._own} up")
        self._ip(f"-n {self._name} address add {self.client}/24 dev {self._theirs}")
        self._ip(f"-n {self._name} link set {self._theirs} up")
        return self

    def __exit__(self, *_: object) -> None:
        self._ip(f"link delete {self._own}")
        self._ip(f"netns delete {self._name}")

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self._name, *command],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": "."},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def cut(self) -> None:
        """Drop all packets between the namespace and this machine."""
        self._ip(f"-n {self._name} link set {self._theirs} down")

    def _ip(self, arguments: str) -> None:
        subprocess.run(["ip", *arguments.split()], check=True)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None, reason="needs ip and root"
)
def test_connections_of_a_lost_network_are_closed_busy_or_idle(server: Server) -> None:
    with Network() as network, ExitStack() as clients:

        def connect(text: str) -> str:
            command = (sys.executable, "-c", CLIENT, network.host, str(server.port), text)
            client = clients.enter_context(network.start(*command))
            clients.callback(client.kill)
            assert client.stdout is not None
            return client.stdout.readline().strip()

        connect("")
        job_id = connect(TEXT)
        assert status(server, job_id) == "processing"
        assert connections(server.port, to=network.client) == 2
        network.cut()

        wait_until(lambda: connections(server.port, to=network.client) == 0)
        wait_until(lambda: status(server, job_id) == "cancelled")

    assert "Traceback" not in server.log
