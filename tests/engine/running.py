"""Starts engines with a tone model, and returns the order of its utterances."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dia_server.engine.engine import Engine
from dia_server.engine.generation import Generation
from tests.tones import ToneModel, loader


@asynccontextmanager
async def started(model: ToneModel, max_waiting: int = 64) -> AsyncIterator[Engine]:
    engine = Engine("preview", loader(model), max_waiting=max_waiting)
    engine.start()
    while not engine.ready:
        await asyncio.sleep(0.01)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


async def finish(*generations: Generation) -> None:
    for generation in generations:
        async with generation:
            assert [chunk async for chunk in generation][-1].done


def order(model: ToneModel) -> str:
    return "".join(seen.text for seen in model.seen)
