"""The store of anchors: a file and its row, or neither."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from dia_server.services.durable_files import FileChange
from tests.libraries import Home
from tests.waiting import until


async def test_an_anchor_whose_keeping_is_cancelled_has_both_file_and_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    apply = FileChange.apply

    def apply_later(change: FileChange) -> None:
        begun.set()
        assert go_on.wait(60)
        apply(change)

    home = Home(tmp_path)
    await home.open()
    monkeypatch.setattr(FileChange, "apply", apply_later)
    keeping = asyncio.create_task(home.add_anchor("aria", seed=7))
    await until(begun.is_set)
    keeping.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert os.listdir(home.anchors.folder) == [home.anchors.all["aria"].file_name]
    await home.database.close()

    again = Home(tmp_path)
    await again.open()
    assert again.anchors.all == home.anchors.all
    await again.database.close()
