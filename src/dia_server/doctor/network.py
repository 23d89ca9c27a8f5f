"""Checks the port, and which clients and websites may use it."""

import http.client
import json
import socket
from collections.abc import Iterator

from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.settings import Settings

TIMEOUT_S = 2.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Maps each value of DIA_HOST that means every interface to the loopback address of such a server."""


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
                yield wrong("Port", f"{where} cannot be used: {error.strerror}. Set DIA_PORT, or DIA_HOST.")
        else:
            yield ok("Port", f"{where} is free")


def check_keys(conf: Settings) -> Iterator[Finding]:
    if conf.api_keys:
        yield ok("Keys", "requests must carry one of DIA_API_KEYS")
    elif conf.beyond_loopback:
        yield note(
            "Keys",
            f"DIA_HOST={conf.host} lets other machines use the server without a key. Set DIA_API_KEYS, "
            "unless a firewall or a container's published ports keep them out.",
        )
    else:
        yield ok("Keys", f"no key is required; other machines cannot reach {conf.host}")


def check_sites(conf: Settings) -> Iterator[Finding]:
    """Report which websites can use the server through a visitor's browser, and which settings admit more."""
    if not conf.api_keys and "*" in conf.allowed_hosts:
        yield note(
            "Sites", "DIA_ALLOWED_HOSTS=* lets any website in by DNS rebinding; name the hosts instead."
        )
    if not conf.api_keys and "*" in conf.cors_origins:
        yield note(
            "Sites", "DIA_CORS_ORIGINS=* lets any website in; name their origins, or set DIA_API_KEYS."
        )
    elif conf.cors_origins:
        yield ok("Sites", f"pages of {', '.join(conf.cors_origins)} may use the server")
    elif conf.api_keys:
        yield ok("Sites", "pages of any origin may use the server, if they have a key")
    else:
        yield ok(
            "Sites",
            "apps and pages of the local network may use the server. A public page needs "
            "DIA_CORS_ORIGINS=https://its.name; a server with a public name (behind a proxy), or one like "
            "nas.fritz.box, needs DIA_ALLOWED_HOSTS=that.name, or keys.",
        )


def _ask_health(conf: Settings) -> dict[str, object] | None:
    """Return the /health response at the configured address; None unless a dia-server answers."""
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
