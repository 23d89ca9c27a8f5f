"""Another site: empty pages on a port of this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title>")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def site(name: str = "127.0.0.1") -> Iterator[str]:
    """Serve empty pages, and yield their origin; `name` must resolve to this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        yield f"http://{name}:{pages.server_port}"
        pages.shutdown()
