"""Parts of voice prompts."""

from dia_server.engine.types import Frames, GeneratedAudio, Recording, Samples, VoicePrompt


def recording_of(prompt: VoicePrompt) -> Samples:
    """Return the samples of a prompt's first part, which must be a recording."""
    assert isinstance(prompt.parts[0], Recording)
    return prompt.parts[0].samples


def generated_frames(prompt: VoicePrompt) -> Frames:
    """Return the frames of a prompt's last part, which must be generated."""
    assert isinstance(prompt.parts[-1], GeneratedAudio)
    return prompt.parts[-1].frames
