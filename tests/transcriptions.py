"""Makes transcriptions as Whisper would return them."""

from dia_server.services.voices.transcription import Confidence, Transcription

SURE = Confidence(
    language="en", language_probability=0.99, average_log_probability=-0.2, no_speech_probability=0.01
)
SPANISH = Confidence(
    language="es", language_probability=0.98, average_log_probability=-0.2, no_speech_probability=0.01
)


def heard(text: str, confidence: Confidence = SURE) -> Transcription:
    return Transcription(text=text, confidence=confidence, is_sampled=False)
