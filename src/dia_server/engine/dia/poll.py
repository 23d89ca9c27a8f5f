"""The results of one poll's steps, copied from the device to the host."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from dia_server.engine.dia.run import Outcome, Run
from dia_server.engine.dia.state import State

FACTS = 4
"""Numbers that the host needs of each slot, besides the new columns."""


def results(state: State, index: Tensor, before: Tensor, steps: int) -> Tensor:
    """Return what the host needs of `steps` steps: [B, FACTS + steps * channels] int64, on the device.

    Each row has a slot's position, EOS column, live and broken, and then the new columns. `index` and
    `before`, both [B], are the slots and their positions before the steps.
    """
    after = before[:, None] + torch.arange(1, steps + 1, device=before.device)
    columns = state.grid[index[:, None], after.clamp_max(state.columns)].flatten(1)
    facts = [state.position, state.eos_at, state.live.long(), state.broken.long()]
    return torch.cat([torch.stack([fact[index] for fact in facts], 1), columns], 1)


class Poll:
    """Results of a batch's steps on their way to the host."""

    def __init__(
        self, values: Tensor, slots: Sequence[int], runs: Sequence[Run], steps: int, device: torch.device
    ) -> None:
        """`values` [B, ...] are the `results`, in memory of the host; on CUDA their copy has been queued.

        They must not change before `outcomes` has yielded all rows.
        """
        self._values, self._slots, self._runs, self._steps = values, slots, runs, steps
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda":
            # blocking: the host sleeps while it waits, instead of keeping a core busy
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record()
        self._arrived: Future[None] | None = None

    def watch(self, thread: ThreadPoolExecutor) -> None:
        """Wait for the copy in `thread`, so that `arrives` can wait for something else too."""
        if self._copied is not None:
            self._arrived = thread.submit(self._copied.synchronize)

    def arrives(self, other: Future[Any] | None) -> bool:
        """Wait until the copy has arrived, or `other` is done; return whether the copy has arrived."""
        if self._arrived is None:
            return True
        wait([one for one in (self._arrived, other) if one is not None], return_when=FIRST_COMPLETED)
        return self._arrived.done()

    def outcomes(self) -> Iterator[tuple[int, Run, Outcome]]:
        """Wait for the copy; yield each slot with its run and outcome."""
        if self._arrived is not None:
            self._arrived.result()
        facts = self._values[:, :FACTS].tolist()
        columns = self._values[:, FACTS:].reshape(len(self._slots), self._steps, -1)
        for slot, run, (position, eos_at, live, broken), new in zip(
            self._slots, self._runs, facts, columns, strict=True
        ):
            yield slot, run, Outcome(position, eos_at, bool(live), bool(broken), new)
