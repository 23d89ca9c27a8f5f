"""How many engines a cluster needs: the servers tell the replicas, and these tell Ray Serve's autoscaler.

The autoscaler counts only utterances that were sent to a replica, but those that wait do so in the servers.
"""

import math
import time
from collections.abc import Callable
from typing import Any

METRIC = "demand"
"""Name of the replicas' measurement: utterances that run or wait in all servers, divided by the slots of one
replica."""
TARGET = 0.8
"""Share of the slots that is to be busy: the others are for utterances that come while an engine starts."""
FORGET_S = 10.0
"""Seconds after which the demand of a server that tells no news is none."""


class Demand:
    """Number of utterances that run or wait, by server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[str, tuple[int, float]] = {}

    def put(self, server: str, utterances: int) -> None:
        self._of[server] = utterances, self._clock()

    @property
    def total(self) -> int:
        recent = self._clock() - FORGET_S
        self._of = {server: told for server, told in self._of.items() if told[1] > recent}
        return sum(utterances for utterances, _ in self._of.values())


def scale(context: Any) -> tuple[int, dict[str, Any]]:
    """Return the number of engines wanted, and no state; an autoscaling policy of Ray Serve.

    `context` is Ray Serve's AutoscalingContext. Each replica measures the demand of all servers, so their
    maximum counts: a new one has not heard of all servers yet.
    """
    demands = (context.aggregated_metrics or {}).get(METRIC)
    if not demands:
        return context.target_num_replicas, {}
    return math.ceil(max(demands.values()) / TARGET), {}
