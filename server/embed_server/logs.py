"""What the server logs, and in which form."""

import logging
import reprlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson

from embed_runtime.config import RuntimeConfig
from embed_server.config import ServerConfig

logger = logging.getLogger(__name__)

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what a record carries as `fields` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def start_logging(config: ServerConfig) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if config.log_format == "json" else logging.Formatter(TEXT)
    )
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    # What uvicorn says at level info, the ready line says better.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))


def log_options(config: ServerConfig, runtime_config: RuntimeConfig) -> None:
    """Log the options in effect, all but the keys."""
    values = asdict(config) | asdict(runtime_config)
    values["api_key"] = f"{len(config.api_key)} keys"
    values["chat_template"] = reprlib.repr(config.chat_template)  # may be many lines
    logger.info(
        "options: %s",
        ", ".join(f"{name}={value}" for name, value in values.items()),
        extra={"fields": {"options": values}},
    )
