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
