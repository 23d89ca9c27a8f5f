"""nginx in front of servers, with a configuration of deploy/."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.live.address import Address
from tests.live.server import free_port
from tests.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/dia-server.conf;
}}
"""


@contextmanager
def proxy(folder: Path, configuration: str, servers: dict[str, int]) -> Iterator[int]:
    """Run nginx with a file of deploy/ in `folder`; yield its port on loopback.

    `servers` maps the addresses of servers in the file to ports.
    """
    port = free_port()
    text = (DEPLOY / configuration).read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for address, server_port in servers.items():
        assert f"server {address}" in text
        text = text.replace(f"server {address}", f"server 127.0.0.1:{server_port}")
    (folder / "dia-server.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with subprocess.Popen(command) as process:
        try:
            wait_until(lambda: _answers(port))
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        return Address(f"http://127.0.0.1:{port}").get("/health").status_code == 200
    except httpx.TransportError:
        return False
