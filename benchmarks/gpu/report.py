"""Writes results as JSON lines, each on the disk before the next measurement begins."""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = "results.jsonl"
"""File of the results in the output folder."""


class Refused(Exception):
    """The machine or the options do not allow any check."""


class Report:
    """Reports one check's results, on stdout and in the results file."""

    def __init__(self, out: Path, check: str, **facts: Any) -> None:
        """`facts` are added to every line."""
        self.failed = False
        """Whether a `part` has failed."""
        self._path, self._facts = out / RESULTS, {"check": check, **facts}

    def line(self, **fields: Any) -> None:
        text = json.dumps(self._facts | fields)
        with self._path.open("a") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        print(text, flush=True)

    def measured(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        **facts: Any,
    ) -> None:
        """Report a measured value and, if it has a target, whether it meets the target."""
        target: dict[str, Any] = {}
        if at_least is not None:
            target = {"at_least": at_least, "holds": value >= at_least}
        elif at_most is not None:
            target = {"at_most": at_most, "holds": value <= at_most}
        self.line(what=what, value=float(f"{value:.5g}"), unit=unit, **target, **facts)

    def no_fallback(self, notes: Sequence[str]) -> None:
        """Report a model's notes: each is a slower way, taken because a faster one failed."""
        self.absent("slower ways", notes)

    def absent(self, what: str, found: object) -> None:
        """Report a fault that was looked for; the check misses its target if one was found."""
        self.line(what=what, found=found or None, holds=not found)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Report an exception of the block, so that the check goes on with its next part."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - reported, and the check fails at its end
            traceback.print_exc(file=sys.stderr)
            self.failed = True
            cause = traceback.format_exception_only(error)[-1].strip()
            self.line(part=name, status="failed", error=cause)
