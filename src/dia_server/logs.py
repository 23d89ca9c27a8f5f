"""Structured logging to stderr: this package logs from the set level up, libraries from warning up.

Tracebacks never show local variables, which may hold users' texts. Texts are logged only if DIA_SHOW_PROMPTS
is set.
"""

import logging.config
import sys
from typing import Any

import structlog
from structlog.typing import Processor

from dia_server.settings import wants_color

OURS = "dia_server"
"""Name of the parent logger of this package's modules."""
SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def dict_config(log_format: str, level: str) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`, which is also passed to Granian."""
    renderer: list[Processor]
    if log_format == "json":
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        colors = wants_color(terminal=sys.stderr.isatty())
        renderer = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": SHARED,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structlog",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            OURS: {"level": level.upper()},
            "dia_server.db.engine._Pool": {"level": "WARNING"},  # SQLAlchemy's logger for our pool
            "_granian": {"propagate": True},
            "libav": {"level": "CRITICAL"},  # FFmpeg's remarks on users' files; errors are raised anyway
        },
    }


def configure(log_format: str, level: str) -> None:
    """Set up structlog and route all log records of this process through it."""
    logging.config.dictConfig(dict_config(log_format, level))
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """Change the lowest level at which this package logs; may be called while the server runs."""
    logging.getLogger(OURS).setLevel(level.upper())
