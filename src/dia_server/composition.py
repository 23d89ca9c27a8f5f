"""Builds the services of one server from the settings, and connects them."""

from collections.abc import Collection
from functools import partial

from dia_server import __version__, crash_mark, files, logs
from dia_server.configuration import default_config, set_variables
from dia_server.crash_mark import CrashMarks
from dia_server.db.engine import Database
from dia_server.db.listener import Listener
from dia_server.db.lock import ServerLock
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.devices import accelerators
from dia_server.engine.types import Samples
from dia_server.engines import choose_engine, identity
from dia_server.services.config import Config, ConfigService
from dia_server.services.jobs import (
    JobReferences,
    JobService,
    JobStore,
    JobWorker,
    Recorder,
    Retention,
)
from dia_server.services.peers import Heartbeat, Leadership, Membership, Reloading
from dia_server.services.server import (
    Announcement,
    LocalCounts,
    Metrics,
    ResourceMonitor,
    SharedCounts,
    Shutdown,
    StatsService,
    StatusService,
)
from dia_server.services.speech import (
    AnchorMaker,
    CandidateMaker,
    Narrator,
    RequestPreparer,
    RequestTexts,
    SpeechService,
    VoicePreviews,
    WordCheck,
    WordPlaces,
)
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.candidates import CandidateStore
from dia_server.services.voices.custom_voices import CustomVoices
from dia_server.services.voices.library import VoiceLibrary
from dia_server.services.voices.prompt_decoder import PromptDecoder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.references import References
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.services.voices.voice_prompts import VoicePrompts
from dia_server.services.voices.whisper import Whisper
from dia_server.serving import is_listening
from dia_server.settings import Settings
from dia_server.timing import Timing


class Services:
    """Constructs every service; `run_services` opens, loads and starts them."""

    def __init__(
        self, conf: Settings, given: Collection[str], engine: AnyEngine | None, timing: Timing
    ) -> None:
        self.conf = conf
        self.timing = timing
        self._gpus = accelerators()
        self.lock = ServerLock(conf.sqlalchemy_url, conf.audio_outputs)
        self.database = Database(
            conf.sqlalchemy_url,
            busy_timeout_ms=timing.busy_timeout_ms,
            connections=conf.database_connections,
        )
        self.membership = Membership(
            self.database, lease_s=timing.lease_s, on_new_id=crash_mark.set_server_id
        )
        self.leadership = Leadership(leads=not self.database.shared)
        self.config = ConfigService(self.database.sessions, default_config(conf), set_variables(given))
        self.engine = engine or choose_engine(conf, self._gpus, lambda: self.config.current)
        self._build_voices()
        self._build_speech_and_jobs()
        self._build_server()
        self._build_peers()
        self.config.subscribe(self._apply)

    def _build_voices(self) -> None:
        conf = self.conf
        self.prompt_decoder = PromptDecoder()
        self.files = files.choose(conf, self.prompt_decoder.make, self.database)
        self.anchors = AnchorStore(self.database.sessions, self.files.anchors)
        self.candidates = CandidateStore(self.database, self.files.candidates, self.membership)
        self.pronunciations = PronunciationStore(self.database.sessions)
        self.voices = VoiceService(self.database.sessions, self.anchors, self.pronunciations)
        self.prompts = PromptService(self.database.sessions, self.files.recordings, self.voices)
        self.custom_voices = CustomVoices(self.prompts, self.voices)
        self.library = VoiceLibrary(
            self.database.sessions, self.files.recordings, self.prompts, self.voices, self.anchors
        )
        self.whisper = Whisper(conf.whisper_model, idle_s=conf.whisper_idle)
        self.references = References(self.prompts, self.files.references, self.whisper)
        self.transcripts = TranscriptService(
            self.prompts,
            self.files.recordings,
            self.whisper,
            auto_transcribe=conf.auto_transcribe,
            wait_s=conf.transcribe_wait,
        )

    def _build_speech_and_jobs(self) -> None:
        conf, timing = self.conf, self.timing
        self.job_store = JobStore(self.database, self.membership)
        self.outputs = self.files.outputs
        self.recorder = Recorder(self.job_store, self.outputs, self.config, retry_s=timing.recorder_retry_s)
        words = WordCheck(self.whisper.transcribe, conf.guard_word_errors)
        narrator = Narrator(
            self.engine,
            retries=conf.guard_retries,
            exceeds_limit=words.exceeds_limit if conf.guard_word_errors else None,
            word_places=WordPlaces(self.whisper.align, self.whisper.problem),
        )
        self.anchor_maker = AnchorMaker(
            narrator,
            self.anchors,
            mode=conf.voice_anchors,
            on_gpu=bool(self._gpus) and conf.device != "cpu",
            rounds=1 + conf.guard_retries,
            model=partial(identity, conf.model),
        )
        self.candidate_maker = CandidateMaker(
            self.engine,
            self.anchor_maker,
            self.candidates,
            self.anchors,
            self.voices,
            self.config,
            word_errors=partial(self._word_errors, words),
        )
        preparer = RequestPreparer(
            narrator,
            self.voices,
            VoicePrompts(self.prompts, self.files.recordings, self.anchors, self.references),
            self.anchor_maker,
            texts=RequestTexts(
                self.pronunciations,
                max_characters=conf.max_characters,
                normalize=conf.normalize,
                code_blocks=conf.code_blocks,
                max_columns=conf.max_columns,
            ),
            normalize_loudness=conf.normalize_loudness,
            refresh=self._load_voices if self.database.shared else None,
        )
        self.speech = SpeechService(narrator, preparer, self.config, self.recorder.record)
        self.voice_previews = VoicePreviews(self.speech)
        self.job_worker = JobWorker(
            self.engine,
            self.speech,
            self.job_store,
            self.outputs,
            retry_s=timing.job_retry_s,
            progress_interval_s=timing.job_progress_interval_s,
        )
        job_references = JobReferences(self.job_store, self.files.references)
        self.jobs = JobService(
            self.engine, self.speech, self.job_store, self.job_worker, self.outputs, job_references
        )
        shared = (self.anchors, self.candidates, self.prompts) if self.files.shared else ()
        self.retention = Retention(
            self.job_store,
            self.outputs,
            self.config,
            self.leadership,
            cleanings=[job_references.sweep, *(part.clean for part in shared)],
            local_cleanings=self.files.cleanings,
            interval_s=timing.retention_interval_s,
        )

    async def _word_errors(self, words: WordCheck, samples: Samples, text: str) -> float | None:
        """Return the word error rate of `samples`; None if Whisper is not on this machine."""
        if await self.whisper.problem() is not None:
            return None
        return await words.errors(samples, text)

    def _build_server(self) -> None:
        conf = self.conf
        monitor = ResourceMonitor(self._gpus)
        self.crash_marks = CrashMarks(conf.data_dir)
        self.stats = StatsService(self.database.reads, monitor)
        self.metrics = Metrics(__version__, self.engine, self.job_store, monitor)
        self.request_counts = LocalCounts() if self.database.quick is None else SharedCounts(self.database)
        self.shutdown = Shutdown(conf.shutdown_timeout, self.engine, self.job_worker)
        self.announcement = Announcement(self.engine, conf.url, is_listening)
        self.status = StatusService(
            self.engine,
            self.database,
            self.shutdown,
            gpu_count=len(self._gpus),
            max_characters=conf.max_characters,
        )

    def _build_peers(self) -> None:
        """Build what connects this server with others on the database; started on PostgreSQL only."""
        self.reloading = Reloading(
            {
                "audio_prompts": self.prompts.load,  # before the voices that use them
                "voice_anchors": self.anchors.load,
                "voice_mappings": self.voices.load,
                "pronunciations": self.pronunciations.load,
                "config": self.config.reload,
                "jobs": self._wake_worker,
            }
        )
        self.heartbeat = Heartbeat(self.membership, self._on_heartbeat, interval_s=self.timing.heartbeat_s)
        self.listener = Listener(
            self.conf.database_listen_url or self.conf.sqlalchemy_url,
            application=self.database.application,
            on_connect=self.reloading.all_changed,
            on_message=self._hear,
            on_lead=self.leadership.set,
        )

    async def _load_voices(self) -> None:
        await self.prompts.load()
        await self.anchors.load()
        await self.voices.load()
        await self.pronunciations.load()

    async def _wake_worker(self) -> None:
        self.job_worker.wake()

    async def _on_heartbeat(self) -> None:
        """Take over orphaned work; the leader also deletes past counts of requests."""
        await self.job_worker.take_over()
        await self.candidate_maker.take_over()
        if self.leadership.leads and isinstance(self.request_counts, SharedCounts):
            await self.request_counts.forget_past()

    def _hear(self, message: str) -> None:
        """Handle a notification, which a trigger of the database sends; see migration 0009."""
        match message.split():
            case ["jobs", "cancelled", job_id]:
                self.job_worker.drop(job_id)
            case [table, *_]:
                self.reloading.changed(table)

    def _apply(self, config: Config) -> None:
        """Copy changed configuration to the log level, `transcripts` and `whisper`."""
        level = "info" if self.conf.log_level == "debug" else self.conf.log_level
        logs.set_level("debug" if config.debug_mode else level)
        self.transcripts.auto_transcribe = config.auto_transcribe
        self.whisper.model_size = config.whisper_model_size
