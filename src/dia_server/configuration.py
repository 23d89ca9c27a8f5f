"""Converts settings to the default configuration, which values stored by PUT /config override."""

from collections.abc import Collection

from dia_server import settings
from dia_server.services.config import Config
from dia_server.settings import Settings

RENAMED = {
    "debug_mode": "log_level",
    "whisper_model_size": "whisper_model",
    "torch_compile_enabled": "torch_compile",
}
"""Maps each configuration field whose setting has another name to the setting's name."""


def default_config(conf: Settings) -> Config:
    """Return the configuration that follows from the settings, without stored values."""
    return Config(
        debug_mode=conf.log_level == "debug",
        save_outputs=conf.save_outputs,
        show_prompts=conf.show_prompts,
        output_retention_hours=conf.output_retention_hours,
        auto_discover_prompts=conf.auto_discover_prompts,
        auto_transcribe=conf.auto_transcribe,
        whisper_model_size=conf.whisper_model,
        gpu_mode=conf.gpu_mode,
        worker_count=conf.worker_count,
        torch_compile_enabled=conf.torch_compile,
    )


def set_variables(given: Collection[str]) -> dict[str, str]:
    """Map each configuration field whose setting is in `given` to its environment variable."""
    names = {field: RENAMED.get(field, field) for field in Config.__dataclass_fields__}
    return {field: settings.variable(name) for field, name in names.items() if name in given}
