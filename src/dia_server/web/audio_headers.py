"""Response headers with the seed, the retries, the faults and the warnings of a generation."""

from collections.abc import Iterable

from dia_server.services.speech.request import TextWarning


def generation_headers(
    seed: int | None, retries: int, faults: Iterable[str], warnings: Iterable[TextWarning]
) -> dict[str, str]:
    """Return X-Retries, X-Seed if the seed is known, and X-Faults and X-Warnings unless they are empty."""
    headers = {"X-Retries": str(retries), **warning_headers(warnings)}
    if seed is not None:
        headers["X-Seed"] = str(seed)
    if found := ", ".join(faults):
        headers["X-Faults"] = found
    return headers


def warning_headers(warnings: Iterable[TextWarning]) -> dict[str, str]:
    """Return X-Warnings, with the code and, in parentheses, the message of each; {} without warnings."""
    found = ", ".join(f"{warning.code} ({warning.message})" for warning in warnings)
    return {"X-Warnings": found} if found else {}
