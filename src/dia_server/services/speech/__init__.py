"""From a text to encoded audio: requests, narration, retries, usage and the word check."""

from dia_server.services.speech.anchor_maker import AnchorMaker
from dia_server.services.speech.candidate_maker import CandidateMaker
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.preparation import RequestPreparer
from dia_server.services.speech.request import PreparedRequest, Speech, SpeechRequest, Streamed
from dia_server.services.speech.request_texts import RequestTexts
from dia_server.services.speech.service import SpeechService
from dia_server.services.speech.usage import Usage
from dia_server.services.speech.voice_previews import VoicePreviews
from dia_server.services.speech.word_check import WordCheck
from dia_server.services.speech.word_places import WordPlaces

__all__ = [
    "AnchorMaker",
    "CandidateMaker",
    "Delivery",
    "Narrator",
    "PreparedRequest",
    "RequestPreparer",
    "RequestTexts",
    "Speech",
    "SpeechRequest",
    "SpeechService",
    "Streamed",
    "Usage",
    "VoicePreviews",
    "WordCheck",
    "WordPlaces",
]
