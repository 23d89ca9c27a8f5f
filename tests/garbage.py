"""Objects that only the garbage collector would free."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import until


@contextmanager
def without_collector() -> Iterator[None]:
    """Turn the garbage collector off, after a collection of what other tests have left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def until_freed(kind: type[object]) -> None:
    """Return once no instance of `kind` is left; raises TimeoutError after one second."""

    async def none_left() -> bool:
        return not any(type(found) is kind for found in gc.get_objects())

    await until(none_left, timeout_s=1)
