"""The results of one poll's steps, copied from the device to the host."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from dia_server.engine.dia.run import Outcome, Run
from dia_server.engine.dia.state import State


class Poll:
    """Results of a batch's steps on their way to the host.

    On CUDA an asynchronous copy is queued behind the steps; elsewhere `outcomes` reads them from the device.
    """

    def __init__(
        self,
        state: State,
        slots: Sequence[int],
        runs: Sequence[Run],
        index: Tensor,
        before: Tensor,
        steps: int,
    ) -> None:
        """Queue the copy.

        `index` and `before`, both [B] on the device, are the slots and their positions before the `steps`.
        """
        self._slots, self._runs, self._steps = slots, runs, steps
        after = before[:, None] + torch.arange(1, steps + 1, device=before.device)
        columns = state.grid[index[:, None], after.clamp_max(state.columns)].flatten(1)
        facts = [state.position, state.eos_at, state.live.long(), state.broken.long()]
        values = torch.cat([torch.stack([fact[index] for fact in facts], 1), columns], 1)
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            pinned = torch.empty_like(values, device="cpu", pin_memory=True)
            values = pinned.copy_(values, non_blocking=True)
            # blocking: the host sleeps while it waits, instead of keeping a core busy
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record()
        self._values = values
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
        facts = self._values[:, :4].tolist()
        columns = self._values[:, 4:].view(len(self._slots), self._steps, -1)
        for slot, run, (position, eos_at, live, broken), new in zip(
            self._slots, self._runs, facts, columns, strict=True
        ):
            yield slot, run, Outcome(position, eos_at, bool(live), bool(broken), new)
