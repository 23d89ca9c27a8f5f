"""Response headers with the seed, the retries and the faults of a generation."""

from collections.abc import Iterable


def generation_headers(seed: int | None, retries: int, faults: Iterable[str]) -> dict[str, str]:
    """Return X-Retries, X-Seed if the seed is known, and X-Faults if `faults` is not empty."""
    headers = {"X-Retries": str(retries)}
    if seed is not None:
        headers["X-Seed"] = str(seed)
    if found := ", ".join(faults):
        headers["X-Faults"] = found
    return headers
