from collections.abc import Awaitable, Callable

from dia_server.services.peers import Reloading
from tests.waiting import until


async def test_a_failed_load_is_tried_again_and_what_is_lost_is_loaded_in_time() -> None:
    loads: list[str] = []

    async def load_voices() -> None:
        loads.append("voices")
        if len(loads) == 1:
            raise RuntimeError("unforeseen")

    reloading = Reloading({"voices": load_voices}, interval_s=3600)
    reloading.start()
    reloading.changed("voices")
    reloading.changed("another table")
    await until(lambda: len(loads) == 2)
    await reloading.stop()

    reloading = Reloading({"voices": load_voices}, interval_s=0.01)
    reloading.start()
    await until(lambda: len(loads) >= 4)
    await reloading.stop()


async def test_prompts_are_loaded_before_the_voices_that_use_them() -> None:
    loads: list[str] = []

    def load(table: str) -> Callable[[], Awaitable[None]]:
        async def loading() -> None:
            loads.append(table)

        return loading

    tables = ["prompts", "voices", "jobs"]
    reloading = Reloading({table: load(table) for table in tables}, interval_s=3600)
    for table in reversed(tables):
        reloading.changed(table)
    reloading.start()

    await until(lambda: len(loads) == len(tables))
    await reloading.stop()
    assert loads == tables
