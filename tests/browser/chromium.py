"""Chromium, and the flags that tests start it with."""

import shutil
from pathlib import Path

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first needs half the processor time of the others."""
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
PUBLIC_NAME = "evil.example"
"""Host name that the browser resolves to this machine."""
FLAGS = [
    f"--host-resolver-rules=MAP {PUBLIC_NAME} 127.0.0.1",
    "--no-sandbox",  # containers have no user namespaces to make one of
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
]
TAP = Path(__file__).parent / "tap.js"
