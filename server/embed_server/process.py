"""One server process: take the port, load the bundle, answer, finish what was accepted."""

import logging
import resource
import signal
import socket
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from embed_runtime.certificate import Certificate, read_certificate
from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import InputError
from embed_runtime.manifest import CERTIFICATE_NAME, locate_bundle
from embed_runtime.runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.service import Service

logger = logging.getLogger(__name__)

# Longer than the idle time of usual client pools and load balancers, so that they close first and
# never send a request into a connection that is being closed.
KEEP_ALIVE_SECONDS = 75


def serve(
    path: Path, *, engine: str | None, config: ServerConfig, runtime_config: RuntimeConfig
) -> None:
    """Serve a bundle until SIGTERM or SIGINT, which ends the process with exit code 0.

    Raises:
        InputError: The address cannot be listened on.
        BundleError: The bundle cannot be served here.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    _start_logging(config)
    log_options(config, runtime_config)
    _allow_many_connections()
    # The port first: a wrong one is told at once, and nobody can connect before all is ready.
    with (
        bind(config) as listener,
        Runtime(path, config=runtime_config, engine=engine) as runtime,
    ):
        for line in runtime.skipped_engines:
            print(f"embed-runtime: skipped {line}")
        app = create_app(runtime, config, certificate=_find_certificate(path))
        ready = f"serving {_describe(app.state.service)} on {_url(listener, config)}"
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


def _find_certificate(path: Path) -> Certificate | None:
    folder, _ = locate_bundle(path)
    return read_certificate(folder) if (folder / CERTIFICATE_NAME).exists() else None


def _describe(service: Service) -> str:
    entry = service.runtime.engine_entry
    dimensions = service.runtime.manifest.dimensions.native
    return f"{service.model_names[0]} ({entry.backend}, {entry.precision}, {dimensions} dimensions)"


def _url(listener: socket.socket, config: ServerConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}{config.root_path}"
