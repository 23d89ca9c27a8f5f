"""Content of servers, so that no view of the page is empty."""

import httpx

from tests.recordings import wav_file


def add_voice(client: httpx.Client) -> None:
    """Upload the recording `grandmother`, and map a voice of that name to it."""
    client.post(
        "/audio_prompts/upload",
        data={"prompt_id": "grandmother"},
        files={"audio_file": ("sample.wav", wav_file(3.0))},
    ).raise_for_status()
    client.post(
        "/voice_mappings", json={"voice_id": "grandmother", "audio_prompt": "grandmother"}
    ).raise_for_status()


def add_pronunciation(client: httpx.Client) -> None:
    """Make all voices say "Nguyen" as "win"."""
    client.put("/pronunciations", json={"word": "nguyen", "respelling": "win"}).raise_for_status()
