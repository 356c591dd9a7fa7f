"""One server process: take the port, load the bundles, answer, finish what was accepted."""

import logging
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import InputError
from embed_server.app import create_app
from embed_server.bundles import BundleSource, name_sources, open_models
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

logger = logging.getLogger(__name__)

# Longer than the idle time of usual client pools and load balancers, so that they close first and
# never send a request into a connection that is being closed.
KEEP_ALIVE_SECONDS = 75


def serve(
    sources: Sequence[BundleSource],
    *,
    engine: str | None,
    config: ServerConfig,
    runtime_config: RuntimeConfig,
) -> None:
    """Serve bundles until SIGTERM or SIGINT, which ends the process with exit code 0.

    Raises:
        InputError: The address cannot be listened on, or two bundles have the same name.
        BundleError: A bundle cannot be served here.
    """
    sources = name_sources(sources, config.served_model_name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    _start_logging(config)
    log_options(config, runtime_config)
    _allow_many_connections()
    # The port first: a wrong one is told at once, and nobody can connect before all is ready.
    with bind(config) as listener, ExitStack() as closing:
        models = open_models(sources, engine=engine, runtime_config=runtime_config, closing=closing)
        for model in models:
            for line in model.runtime.skipped_engines:
                print(f"embed-runtime: {model.name}: skipped {line}")
        app = create_app(models, config)
        ready = f"serving {', '.join(map(_describe, models))} on {_url(listener, config)}"
        _Server(_uvicorn_config(app, config), ready=ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready, once connections are accepted."""

    def __init__(self, config: uvicorn.Config, *, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"embed-runtime: {self._ready}", flush=True)


def _uvicorn_config(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        root_path=config.root_path,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=config.drain_seconds,
    )


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    # While uvicorn serves it handles signals itself, and raises them again when it has drained.
    raise SystemExit(0)


def _start_logging(config: ServerConfig) -> None:
    level = config.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What uvicorn says at level info, the ready line says better.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))


def log_options(config: ServerConfig, runtime_config: RuntimeConfig) -> None:
    """Log the options in effect, all but the keys."""
    values = asdict(config) | asdict(runtime_config)
    values["api_key"] = f"{len(config.api_key)} keys"
    logger.info("options: %s", ", ".join(f"{name}={value}" for name, value in values.items()))


def _allow_many_connections() -> None:
    """Lift the soft limit of open files, often 1024, to what the system allows this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(config: ServerConfig) -> socket.socket:
    """Take the port, without accepting connections yet.

    Raises:
        InputError: It is taken, or it is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {config.host}:{config.port}: "
            f"{getattr(error, 'strerror', None) or error}; "
            "choose another --host or --port (0 takes a free port)"
        ) from error
    return listener


def _describe(model: ServedModel) -> str:
    entry = model.runtime.engine_entry
    dimensions = model.manifest.dimensions.native
    return f"{model.name} ({entry.backend}, {entry.precision}, {dimensions} dimensions)"


def _url(listener: socket.socket, config: ServerConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}{config.root_path}"
