from dia_server.services.speech.segment import Segment
from dia_server.settings import Settings
from tests.garbage import until_freed, without_collector
from tests.job_client import serving, submit, wait_until_finished
from tests.tones import ToneModel


def fail() -> None:
    raise RuntimeError("out of luck")


async def test_a_failed_job_frees_its_audio_without_the_garbage_collector(settings: Settings) -> None:
    async with serving(settings, ToneModel(before_step=fail)) as client:
        with without_collector():
            assert (await wait_until_finished(client, await submit(client)))["status"] == "failed"
            await until_freed(Segment)
