"""Response headers about the generation of audio."""

from collections.abc import Iterable


def generation_headers(seed: int | None, retries: int, faults: Iterable[str]) -> dict[str, str]:
    """Return X-Retries, X-Seed unless `seed` is None (unknown), and X-Faults if there are any."""
    headers = {"X-Retries": str(retries)}
    if seed is not None:
        headers["X-Seed"] = str(seed)
    if found := ", ".join(faults):
        headers["X-Faults"] = found
    return headers
