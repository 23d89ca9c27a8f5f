"""Request and response bodies of the API."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from dia_server.services.config import MAX_RETENTION_HOURS, MAX_WORKERS, GpuMode
from dia_server.services.jobs import JobStatus as JobState
from dia_server.services.server import EngineName, State
from dia_server.services.speech import request
from dia_server.services.speech.candidate_request import MAX_COUNT, MAX_TEXT
from dia_server.services.speech.request import AudioFormat, Role
from dia_server.services.speech.timestamps import Granularity, Timestamp
from dia_server.services.voices.candidates import CandidateStatus
from dia_server.services.voices.ids import ID
from dia_server.services.voices.pronunciations import MAX_LENGTH
from dia_server.services.voices.service import MAX_NAME, Speaker
from dia_server.services.voices.whisper import SIZES

MAX_TRANSCRIPT = 4096
"""Maximum characters of a transcript. Dia can read less: 1,024 bytes of transcript and text together."""

# The service checks the text's length, because the limit is a setting and has its own error code.
Text = Annotated[
    str,
    Meta(
        description="Text to convert to speech, with [S1] to [S9] or [voice:luna] before a speaker's turns",
        extra_json_schema={
            "minLength": 1,
            "pattern": r"\S",
            "examples": ["Hello, world!"],
        },
    ),
]
Speed = Annotated[float, Meta(ge=0.25, le=4.0, description="Speech speed; the pitch does not change")]
Temperature = Annotated[
    float, Meta(ge=0.1, le=2.0, description="Sampling temperature; higher is more varied")
]
CfgScale = Annotated[float, Meta(ge=1.0, le=10.0, description="Classifier-free guidance scale")]
TopP = Annotated[float, Meta(ge=0.0, le=1.0, description="Top-p (nucleus) sampling")]
MaxTokens = Annotated[
    int,
    Meta(
        ge=100,
        le=10_000,
        description="Maximum decode steps (86 per second) per segment, not for the whole text",
    ),
]
Seed = Annotated[
    int,
    Meta(
        ge=0,
        le=2**32 - 1,
        description="Seed; the same seed gives the same audio (on a GPU, within one batch bucket); default: "
        "the voice's own",
    ),
]
NormalizeLoudness = Annotated[
    bool, Meta(description="Make the voice as loud as all others; default: the server's setting")
]
Normalize = Annotated[
    bool,
    Meta(
        description="Say Markdown, URLs, emoji, numbers and abbreviations as people would read them; false: "
        "say the text as it is; default: the server's setting"
    ),
]
Timestamps = Annotated[
    Granularity,
    Meta(
        description="Also tell when each segment, turn, sentence or word is said: in the job, as events "
        "while streaming, else in a JSON answer with the audio in base64"
    ),
]
VoiceId = Annotated[
    str, Meta(pattern=rf"^{ID.pattern}$", description="1 to 64 letters, digits, '_', '-' or '.'")
]


RefAudio = Annotated[
    str,
    Meta(
        description="Recording to speak in the voice of, as base64 or as a data URL, at most 10 MiB decoded; "
        "it replaces the recording of the voice",
        extra_json_schema={"contentEncoding": "base64"},
    ),
]
RefText = Annotated[
    str,
    Meta(
        max_length=MAX_TRANSCRIPT,
        description="Exact words of ref_audio; default: transcribed by Whisper",
    ),
]


SpeakerVoices = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[Ss][1-9](?!\n)$")], str],
    Meta(description='Voice identifiers of speakers: {"S3": "luna"} for text tagged [S3]'),
]
CharacterName = Annotated[str, Meta(pattern=r"^\s*[^\s:\[\]][^:\[\]\r\n]{0,63}$")]
ScriptCast = Annotated[
    dict[CharacterName, str],
    Meta(
        max_length=64,
        description='Voice identifiers of the names that begin lines: {"Anna": "luna"} for "Anna: Hello"',
    ),
]


class SpeechParameters(Struct, kw_only=True):
    """Fields that each body for speech in our own format has."""

    response_format: AudioFormat = "wav"
    speed: Speed = 1.0
    temperature: Temperature | None = None
    cfg_scale: CfgScale | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    use_torch_compile: Annotated[
        bool | None,
        Meta(description="Accepted, without effect: all requests share steps, which the operator configures"),
    ] = None
    seed: Seed | None = None
    stream: Annotated[bool, Meta(description="Send the audio while it is generated")] = False
    normalize: Normalize | None = None
    normalize_loudness: NormalizeLoudness | None = None
    timestamps: Timestamps | None = None
    ref_audio: RefAudio | None = None
    ref_text: RefText | None = None
    voices: SpeakerVoices | None = None


class GenerateRequest(SpeechParameters, kw_only=True):
    text: Text
    voice_id: (
        Annotated[str, Meta(description="Voice identifier", extra_json_schema={"default": "aria"})]
        | UnsetType
    ) = UNSET
    voice: Annotated[str | None, Meta(description="Alias of voice_id; ignored if voice_id is given")] = None
    voice_id_2: Annotated[str | None, Meta(description="Voice identifier for [S2]")] = None
    role: Annotated[Role | None, Meta(description="Speaker of text without tags: S1 for user, else S2")] = (
        None
    )
    cast: ScriptCast | None = None


class DialogueInput(Struct, kw_only=True):
    """A turn of a dialogue."""

    text: str
    voice_id: Annotated[str | None, Meta(description="Voice identifier; it or `voice` is required")] = None
    voice: Annotated[str | None, Meta(description="Alias of voice_id; ignored if voice_id is given")] = None


class DialogueRequest(SpeechParameters, kw_only=True):
    inputs: Annotated[list[DialogueInput], Meta(min_length=1, description="Turns in the order of the audio")]
    response_format: AudioFormat = "mp3"
    apply_text_normalization: Annotated[
        Literal["auto", "on", "off"] | None,
        Meta(
            description="Name of ElevenLabs for normalize, which takes precedence; auto: the server's setting"
        ),
    ] = None


class VoiceReference(Struct):
    """Voice as an object, which OpenAI's API accepts besides a plain name."""

    id: str


class SpeechRequest(Struct, kw_only=True):
    input: Text
    model: Annotated[str | None, Meta(description="Ignored; there is one model")] = "dia"
    voice: Annotated[
        str | VoiceReference | None, Meta(description="Voice identifier, or OpenAI's voice name")
    ] = "aria"
    response_format: AudioFormat | None = "wav"
    speed: Speed | None = 1.0
    seed: Seed | None = None
    stream: Annotated[
        bool | None,
        Meta(description="Send the audio while it is generated; default: true except for wav"),
    ] = None
    stream_format: Annotated[
        Literal["audio", "sse"] | None, Meta(description="sse: server-sent events with the audio in base64")
    ] = None
    normalize: Normalize | None = None
    normalize_loudness: NormalizeLoudness | None = None
    timestamps: Timestamps | None = None
    ref_audio: RefAudio | None = None
    ref_text: RefText | None = None
    voices: SpeakerVoices | None = None
    cast: ScriptCast | None = None


class SpeechWithTimestamps(Struct, kw_only=True):
    audio: Annotated[str, Meta(description="Base64 of the audio file")]
    media_type: str
    timestamps: list[Timestamp]
    seed: int
    retries: int
    faults: list[str]


class JobTimestamps(Struct, kw_only=True):
    job_id: str
    granularity: Granularity
    timestamps: list[Timestamp]


class PlannedUtterance(Struct):
    text: str
    pause_before_s: float
    estimated_s: float
    voices: Annotated[dict[str, str], Meta(description="Voice that each tag of the segment stands for")]


class TextWarning(Struct):
    """What the client should know about its text; nothing is refused for it."""

    code: Literal["other_script", "other_language"]
    message: str


Warnings = Annotated[
    list[TextWarning], Meta(description="Tells that the text is mostly not in English; empty if it is")
]


def text_warnings(found: Iterable[request.TextWarning]) -> list[TextWarning]:
    return [TextWarning(one.code, one.message) for one in found]


class AppliedPronunciation(Struct):
    word: Annotated[str, Meta(description="Word as the text has it")]
    respelling: Annotated[str, Meta(description="What is said in its place")]


class SpeechPlan(Struct):
    text: Annotated[str, Meta(description="The whole text as it will be said")]
    changed: Annotated[bool, Meta(description="Whether it differs from the text of the request")]
    utterances: Annotated[list[PlannedUtterance], Meta(description="Segments in order")]
    estimated_s: Annotated[float, Meta(description="Total seconds, including pauses")]
    pronunciations: Annotated[
        list[AppliedPronunciation], Meta(description="Words that are said in another spelling, each once")
    ]
    warnings: Warnings


PreviewUrl = Annotated[str, Meta(description="Path of a sample of the voice, a WAV file")]


def preview_url(voice_id: str) -> str:
    return f"/voices/{voice_id}/preview"


AnchorFaults = Annotated[tuple[str, ...], Meta(description="Faults that the guard found")]
Pitch = Annotated[
    float | None, Meta(description="Median fundamental frequency in Hz; null if it is not known")
]
WordErrors = Annotated[
    float | None, Meta(description="Share of wrong words, as Whisper hears it; null if it is not known")
]


class Anchor(Struct, kw_only=True):
    """Speech that Dia generated once for a voice without a recording, and the prompt of all that it says."""

    digest: Annotated[str, Meta(description="SHA-256 of the anchor's file")]
    transcript: str
    seed: int
    model: Annotated[str, Meta(description="Id and revision of the model that generated it")]
    duration: Annotated[float, Meta(description="Duration in seconds")]
    faults: AnchorFaults
    pitch: Pitch
    word_errors: WordErrors
    created_at: datetime
    note: Annotated[str | None, Meta(description="Present if another model generated it")] = None


class CandidateRequest(Struct, kw_only=True):
    """Candidates to make: the same text, spoken with different seeds."""

    count: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="Number of candidates")] = 4
    seed: (
        Annotated[
            int,
            Meta(
                ge=0, le=2**32 - 1, description="Seed of the first; the others have the next. Default: random"
            ),
        ]
        | None
    ) = None
    style: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=64,
                description="deep ranks low voices first, bright high ones, any other word those that differ "
                "most from the other voices; default: the voice's style",
            ),
        ]
        | None
    ) = None
    text: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_TEXT,
                description="Text that they speak, without speaker tags; default: two fixed sentences",
            ),
        ]
        | None
    ) = None


class Candidate(Struct, kw_only=True):
    candidate_id: str
    voice_id: str
    status: CandidateStatus
    seed: int
    style: str
    transcript: str
    audio_url: Annotated[str | None, Meta(description="Path of the audio; null until it is completed")]
    duration: Annotated[float | None, Meta(description="Duration in seconds; null until it is completed")]
    faults: AnchorFaults
    pitch: Pitch
    word_errors: WordErrors
    checking: Annotated[bool, Meta(description="Whether Whisper is counting the word errors")]
    error: Annotated[str | None, Meta(description="Cause of a failure")]
    created_at: datetime


class Candidates(Struct):
    candidates: Annotated[list[Candidate], Meta(description="The most promising first")]


class AnchorRequest(Struct):
    candidate_id: Annotated[str, Meta(max_length=36, description="Candidate to keep")]


class Voice(Struct):
    name: str
    voice_id: str
    preview_url: PreviewUrl
    anchor: Anchor | UnsetType = UNSET
    """Absent until it is made, and for a voice with a recording."""


class Voices(Struct):
    voices: list[Voice]


class AudioVoice(Struct):
    """A voice; `id` and `voice_id` are equal, because clients read one or the other."""

    id: str
    name: str
    voice_id: str
    preview_url: PreviewUrl


class AudioVoices(Struct):
    voices: list[AudioVoice]


NeedsReview = Annotated[
    bool,
    Meta(
        description="Whether the transcript is a draft of which Whisper is not sure; voices cannot use it "
        "until PUT /audio_prompts/{prompt_id}/transcript has confirmed or corrected it"
    ),
]
PromptNote = Annotated[
    str | None, Meta(description="What to do before a voice can use the recording; null if nothing")
]


class CustomVoice(Struct, kw_only=True):
    """A voice made of a recording, with the fields of OpenAI's API."""

    id: Annotated[str, Meta(description="Identifier of the voice and of its audio prompt")]
    object: Literal["audio.voice"] = "audio.voice"
    type: Literal["audio_sample"] = "audio_sample"
    name: str
    created_at: Annotated[int, Meta(description="Unix seconds")]
    transcript: Annotated[
        str | None, Meta(description="null if there is none, or while Whisper transcribes the recording")
    ]
    needs_review: NeedsReview
    note: PromptNote


class CustomVoiceDeleted(Struct, kw_only=True):
    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: bool = True


class ModelVoice(AudioVoice, kw_only=True):
    value: str
    label: str


class ModelVoices(Struct):
    voices: list[ModelVoice]


DisplayName = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME, description="Name in any script, which lists of voices show")
]
Partner = Annotated[
    VoiceId,
    Meta(description="Voice that speaks for the other speaker, if a text has two and one voice is asked for"),
]


class VoiceSettings(Struct, kw_only=True):
    style: Annotated[str, Meta(min_length=1, max_length=64)] = "neutral"
    primary_speaker: Speaker = "S1"
    audio_prompt: VoiceId | None = None
    audio_prompt_transcript: Annotated[str, Meta(max_length=MAX_TRANSCRIPT)] | None = None


class VoiceMapping(VoiceSettings, kw_only=True):
    display_name: DisplayName | None = None
    partner: Partner | None = None


class VoiceMappingRequest(VoiceSettings, kw_only=True):
    """A voice mapping to save; if `display_name` or `partner` is absent, an existing voice keeps its own."""

    voice_id: VoiceId
    display_name: DisplayName | UnsetType | None = UNSET
    partner: Partner | UnsetType | None = UNSET


class VoiceMappingSaved(VoiceMapping, kw_only=True):
    message: str
    voice_id: VoiceId


class VoiceMappingDeleted(Struct):
    message: str
    voice_id: str


class VoicesImported(Struct, kw_only=True):
    message: str
    voices: Annotated[list[str], Meta(description="Ids of the voices")]
    audio_prompts: Annotated[list[str], Meta(description="Ids of the recordings")]
    anchors: Annotated[list[str], Meta(description="Ids of the voices whose anchors were in the archive")]
    licence: Annotated[str | None, Meta(description="Licence note of the archive")]


Respelling = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_LENGTH,
        description="What is said in its place: words of letters and digits, with ' and - inside",
    ),
]


class PronunciationRequest(Struct, kw_only=True):
    """A word to say in another spelling."""

    word: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_LENGTH,
            description="One word of letters and digits, with ' and - inside. In lower case it stands for "
            "the word in any case, with capitals only for itself",
        ),
    ]
    respelling: Respelling
    voice_id: Annotated[str | None, Meta(description="Voice that says it so; null for all voices")] = None


class Pronunciation(Struct, kw_only=True):
    word: str
    respelling: str
    voice_id: Annotated[str | None, Meta(description="Voice that says it so; null for all voices")]


class Pronunciations(Struct):
    pronunciations: list[Pronunciation]


class PronunciationSaved(Pronunciation, kw_only=True):
    message: str


class PronunciationDeleted(Struct):
    message: str
    word: str
    voice_id: str | None


class PronunciationsImported(Struct, kw_only=True):
    message: str
    imported: Annotated[int, Meta(description="Number of pronunciations in the file")]
    total: Annotated[int, Meta(description="Number of pronunciations that there are now")]


class Model(Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


class AudioModel(Struct):
    id: str


class AudioModels(Struct):
    models: list[AudioModel]


class Cluster(Struct, kw_only=True):
    """The engines on other machines, as last asked: half a second ago."""

    replicas: Annotated[int, Meta(description="Number of engines")]
    hosts: Annotated[int, Meta(description="Number of machines with engines")]
    slots: Annotated[int, Meta(description="Utterances that can be generated at the same time")]
    failovers: Annotated[
        int, Meta(description="Utterances of this server whose engine was lost, since its start")
    ]


class Health(Struct, kw_only=True):
    status: Annotated[State, Meta(description="Whether speech can be generated now")]
    version: str
    model_loaded: bool
    gpu_available: bool
    gpu_count: int
    worker_count: Annotated[int, Meta(description="Number of engines, each with its own model")]
    active_jobs: Annotated[int, Meta(description="Utterances running or waiting")]
    uptime: str
    engine: Annotated[EngineName, Meta(description="Engine in use")]
    loading: Annotated[int, Meta(ge=0, le=100, description="Progress of loading the model in percent")]
    max_characters: Annotated[int, Meta(description="Maximum characters of a text")]
    error: Annotated[
        str | None, Meta(description="Cause of the failure to load the model, and the remedy")
    ] = None
    retry: Annotated[
        str | None, Meta(description="Route to POST to for a retry; null unless loading has failed")
    ] = None
    notes: Annotated[list[str], Meta(description="Features that are limited, with cause and remedy")] = []
    cluster: Cluster | UnsetType = UNSET


class Probe(Struct):
    status: Literal["alive", "ready"]


class AudioPromptUploaded(Struct, kw_only=True):
    message: str
    prompt_id: str
    file_path: str
    duration: Annotated[float, Meta(description="Seconds")]
    sample_rate: int
    transcript: Annotated[
        str | None, Meta(description="null if there is none, or while Whisper transcribes the recording")
    ]
    needs_review: NeedsReview
    note: PromptNote


class AudioPrompt(Struct, kw_only=True):
    prompt_id: str
    file_path: str
    duration: Annotated[float, Meta(description="Seconds")]
    sample_rate: int


class AudioPrompts(Struct):
    audio_prompts: list[AudioPrompt]


class TranscriptConfidence(Struct, kw_only=True):
    """How sure Whisper is of a transcript."""

    language: Annotated[
        str | None,
        Meta(description="Language that Whisper detected, such as es; null for an English-only model"),
    ]
    language_probability: Annotated[float | None, Meta(description="0 to 1; null for an English-only model")]
    average_log_probability: Annotated[
        float,
        Meta(description="Mean natural logarithm of the probabilities of the transcript's tokens"),
    ]
    no_speech_probability: Annotated[
        float, Meta(description="Probability, 0 to 1, that nothing is spoken, by Whisper")
    ]


class AudioPromptMetadata(AudioPrompt, kw_only=True):
    transcript: str | None
    transcript_source: Annotated[
        Literal["reference", "txt", "manual", "whisper_auto", "pending"] | None,
        Meta(description="Source of the transcript; pending while Whisper transcribes the recording"),
    ]
    file_size: Annotated[int, Meta(description="Bytes")]
    created_at: datetime
    needs_review: NeedsReview
    note: PromptNote
    confidence: Annotated[
        TranscriptConfidence | None, Meta(description="null if the transcript is not by Whisper")
    ]


class AudioPromptsMetadata(Struct):
    audio_prompts: list[AudioPromptMetadata]


class AudioPromptDeleted(Struct):
    message: str
    prompt_id: str


class DiscoverRequest(Struct, frozen=True):
    force_retranscribe: Annotated[
        bool,
        Meta(description="Regenerate transcripts made by Whisper; other transcripts are kept"),
    ] = False


class DiscoveredPrompt(Struct):
    prompt_id: str
    file_path: str
    transcript: str | None
    needs_review: NeedsReview


class SkippedFile(Struct):
    file_path: str
    reason: str


class Discovered(Struct):
    message: str
    total_prompts: int
    discovered: Annotated[list[DiscoveredPrompt], Meta(description="Prompts that are new or changed")]
    skipped: Annotated[
        list[SkippedFile], Meta(description="Audio files that cannot be used, with the reason")
    ]


class TranscriptRequest(Struct):
    transcript: Annotated[str, Meta(min_length=1, max_length=MAX_TRANSCRIPT)]


class TranscriptSaved(Struct, kw_only=True):
    message: str
    prompt_id: str
    transcript: str
    saved_to: Annotated[str | None, Meta(description="null for a draft, which is not saved as a file")]
    needs_review: NeedsReview
    note: PromptNote


class WhisperStatus(Struct, kw_only=True):
    available: Annotated[
        bool, Meta(description="Whether Whisper can transcribe now: its model is loaded, or on this machine")
    ]
    model_loaded: bool
    model_size: Annotated[str, Meta(description="Name or folder of the model")]
    auto_transcribe: bool
    device: Annotated[str, Meta(description="cuda or cpu; auto until a model is loaded")]
    error: Annotated[str | None, Meta(description="Cause and remedy, if Whisper is unavailable")] = None


class WhisperLoaded(Struct):
    message: str
    model_size: str
    device: str


class JobAccepted(Struct, omit_defaults=True):
    job_id: str
    status: JobState
    message: str
    warnings: Warnings = field(default_factory=list)
    """Left out if there are none."""


Retries = Annotated[
    int, Meta(description="Number of segments generated again because they were faulty, once completed")
]
Faults = Annotated[list[str], Meta(description="Faults of the result that remained after all retries")]

Duration = Annotated[float | None, Meta(description="Seconds of audio in the result")]
Progress = Annotated[int, Meta(ge=0, le=100, description="Percent done")]
Cause = Annotated[str | None, Meta(description="Cause of the failure")]
JobVoice = Annotated[str | None, Meta(description="null if this version cannot read the stored request")]


class JobDetails(Struct, kw_only=True):
    job_id: str
    status: JobState
    created_at: datetime
    started_at: Annotated[datetime | None, Meta(description="Time of the last start")]
    completed_at: Annotated[datetime | None, Meta(description="Time of completion, failure or cancellation")]
    duration: Duration
    result_url: Annotated[str | None, Meta(description="Path of the audio, once completed")]
    progress: Progress
    error: Cause
    generation_time: Annotated[float | None, Meta(description="Duration of the generation in seconds")]
    voice_id: JobVoice
    response_format: AudioFormat | None
    seed: Annotated[int | None, Meta(description="Seed of the generation")]
    retries: Retries
    faults: Faults
    warnings: Warnings


class JobSummary(Struct, kw_only=True):
    job_id: str
    status: JobState
    created_at: datetime
    text_preview: Annotated[str, Meta(description="Beginning of the text")]
    duration: Duration
    progress: Progress
    error: Cause
    voice_id: JobVoice
    response_format: AudioFormat | None
    retries: Retries
    faults: Faults


class Jobs(Struct):
    jobs: list[JobSummary]


class JobRemoved(Struct):
    message: str
    job_id: str
    status: Literal["cancelled", "deleted"]


WhisperSize = Annotated[
    str,
    Meta(description="Size of the Whisper model", extra_json_schema={"enum": SIZES}),
]
RetentionHours = Annotated[
    int,
    Meta(
        ge=0, le=MAX_RETENTION_HOURS, description="Hours after which outputs and jobs are deleted; 0: never"
    ),
]
WorkerCount = Annotated[
    int, Meta(ge=0, le=MAX_WORKERS, description="Maximum number of engines, one per GPU; 0: all GPUs")
]


class Config(Struct, kw_only=True):
    debug_mode: Annotated[bool, Meta(description="Log at level debug")]
    save_outputs: Annotated[bool, Meta(description="Also store the audio of synchronous requests, as jobs")]
    show_prompts: Annotated[bool, Meta(description="Log the texts of requests")]
    output_retention_hours: int
    auto_discover_prompts: Annotated[bool, Meta(description="Look for new audio prompts at start")]
    auto_transcribe: Annotated[bool, Meta(description="Transcribe new audio prompts")]
    whisper_model_size: str
    gpu_mode: GpuMode
    worker_count: Annotated[
        int,
        Meta(description="Number of running engines; after a change, the requested number until the restart"),
    ]
    torch_compile_enabled: bool
    restart_required: Annotated[
        list[str], Meta(description="Fields whose new value takes effect after a restart")
    ]
    stored: Annotated[
        list[str], Meta(description="Fields with a value stored in the database; DELETE removes it")
    ]
    overridden: Annotated[
        dict[str, str],
        Meta(description="Stored fields that override an environment variable, with its name"),
    ]


class ConfigUpdate(Struct, kw_only=True):
    """Changes to the configuration; absent fields are unchanged."""

    debug_mode: bool | UnsetType = UNSET
    save_outputs: bool | UnsetType = UNSET
    show_prompts: bool | UnsetType = UNSET
    output_retention_hours: RetentionHours | UnsetType = UNSET
    auto_discover_prompts: bool | UnsetType = UNSET
    auto_transcribe: bool | UnsetType = UNSET
    whisper_model_size: WhisperSize | UnsetType = UNSET
    gpu_mode: GpuMode | UnsetType = UNSET
    worker_count: WorkerCount | UnsetType = UNSET
    torch_compile_enabled: bool | UnsetType = UNSET


class RequestStats(Struct):
    total: int
    successful: int
    failed: int
    success_rate: Annotated[float, Meta(description="Percent")]


class PerformanceStats(Struct):
    avg_generation_time: Annotated[float, Meta(description="Seconds")]
    avg_tokens_per_second: Annotated[float, Meta(description="Decode steps per second and request")]
    total_audio_generated: Annotated[str, Meta(description="Duration such as 2h 45m 23s")]


class ResourceStats(Struct):
    cpu_usage: Annotated[float, Meta(description="Percent of all cores")]
    memory_usage: Annotated[float, Meta(description="Percent")]
    gpu_usage: Annotated[list[float | None], Meta(description="Percent of each GPU; null: unknown")]
    gpu_memory: Annotated[list[float | None], Meta(description="GiB in use on each GPU; null: unknown")]


class Replica(Struct, kw_only=True):
    """An engine of the cluster."""

    host: Annotated[str, Meta(description="Address of its machine")]
    slots: Annotated[int, Meta(description="Utterances that it can generate at the same time")]
    busy: Annotated[int, Meta(description="Utterances that it generates, for all servers")]


class Stats(Struct):
    requests: RequestStats
    performance: PerformanceStats
    resources: ResourceStats
    replicas: list[Replica] | UnsetType = UNSET


ErrorLimit = Annotated[float, Meta(description="Maximum or minimum that the request violates")]


class Error(Struct):
    detail: str
    error_code: str
    timestamp: datetime
    param: Annotated[str, Meta(description="Request field at fault")] | UnsetType = UNSET
    limit: ErrorLimit | UnsetType = UNSET


class OpenAIErrorDetail(Struct):
    message: str
    type: str
    param: str | None
    code: str
    limit: ErrorLimit | UnsetType = UNSET


class OpenAIError(Struct):
    error: OpenAIErrorDetail
    detail: str
    error_code: str
    timestamp: datetime
