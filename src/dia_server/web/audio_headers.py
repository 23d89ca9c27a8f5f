"""The headers that say how audio was made."""

from collections.abc import Iterable


def generation_headers(seed: int | None, retries: int, faults: Iterable[str]) -> dict[str, str]:
    """`seed` is None where it is not known any more; X-Faults is there only where there are faults."""
    headers = {"X-Retries": str(retries)}
    if seed is not None:
        headers["X-Seed"] = str(seed)
    if found := ", ".join(faults):
        headers["X-Faults"] = found
    return headers
