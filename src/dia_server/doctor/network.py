"""The port."""

import http.client
import json
import socket
from collections.abc import Iterator

from dia_server.doctor.finding import Finding, ok, wrong
from dia_server.settings import Settings

TIMEOUT_S = 2.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Addresses that mean every interface, and where to knock then."""


def check_port(conf: Settings) -> Iterator[Finding]:
    where = f"{conf.host}:{conf.port}"
    family = socket.AF_INET6 if ":" in conf.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((conf.host, conf.port))
        except OSError as error:
            if health := _ask_health(conf):
                version, status = health.get("version"), health.get("status")
                yield ok("Port", f"{where}: dia-server {version} runs there, and is {status}")
            else:
                yield wrong("Port", f"{where} can't be had: {error.strerror}. Set DIA_PORT, or DIA_HOST.")
        else:
            yield ok("Port", f"{where} is free")


def _ask_health(conf: Settings) -> dict[str, object] | None:
    """What a dia-server says of itself there; None where there is none."""
    connection = http.client.HTTPConnection(
        EVERYWHERE.get(conf.host, conf.host), conf.port, timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        health = json.loads(answer.read(65_536))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    ours = answer.getheader("X-Engine") is not None and isinstance(health, dict)
    return health if ours else None
