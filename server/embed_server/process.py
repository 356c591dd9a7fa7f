"""One server process: take the port, load the bundles, answer, finish what was accepted."""

import gc
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from embed_runtime.config import RuntimeConfig
from embed_server.app import create_app
from embed_server.bundles import BundleSource, name_sources, open_models
from embed_server.chat_template import check_special_tokens, open_chat_template
from embed_server.config import ServerConfig
from embed_server.connection import Connection
from embed_server.listening import address_of, check_tls, listen
from embed_server.logs import log_options, start_logging
from embed_server.served_model import ServedModel

# Longer than the idle time of usual client pools and load balancers, so that they close first and
# never send a request into a connection that is being closed.
KEEP_ALIVE_SECONDS = 75

# How long Python lets one thread run while others wait. They all hand over by themselves many times
# a request; being stopped in between, every 5 ms by default, only costs: with one core, a quarter
# of the requests for one text and a third of those for lists of ids.
SWITCH_SECONDS = 0.05


def serve(
    sources: Sequence[BundleSource],
    *,
    engine: str | None,
    config: ServerConfig,
    runtime_config: RuntimeConfig,
) -> None:
    """Serve bundles until SIGTERM or SIGINT, which ends the process with exit code 0.

    Raises:
        InputError: The address cannot be listened on, the files of TLS or the chat template
            cannot be used, or two bundles have the same name.
        BundleError: A bundle cannot be served here.
    """
    sources = name_sources(sources, config.served_model_name)
    chat_template = open_chat_template(config.chat_template) if config.chat_template else None
    check_tls(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    start_logging(config)
    log_options(config, runtime_config)
    _allow_many_connections()
    sys.setswitchinterval(SWITCH_SECONDS)
    # The address first: a wrong one is told at once, and nobody can connect before all is ready.
    with listen(config) as listener, ExitStack() as closing:
        models = open_models(
            sources,
            engine=engine,
            runtime_config=runtime_config,
            chat_template=chat_template,
            closing=closing,
        )
        for model in models:
            if chat_template is not None:
                check_special_tokens(chat_template, model.manifest.chat_template)
            for line in model.runtime.skipped_engines:
                print(f"embed-runtime: {model.name}: skipped {line}")
        app = create_app(models, config)
        # What is here now stays; the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        gc.enable()
        ready = f"serving {', '.join(map(_describe, models))} on {address_of(listener, config)}"
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
        http=Connection,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        root_path=config.root_path,
        ssl_certfile=config.ssl_certfile,
        ssl_keyfile=config.ssl_keyfile,
        ssl_ca_certs=config.ssl_ca_certs,
        ssl_cert_reqs=config.ssl_cert_reqs,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=config.drain_seconds,
    )


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    # While uvicorn serves it handles signals itself, and raises them again when it has drained.
    raise SystemExit(0)


def _allow_many_connections() -> None:
    """Lift the soft limit of open files, often 1024, to what the system allows this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _describe(model: ServedModel) -> str:
    entry = model.runtime.engine_entry
    dimensions = model.manifest.dimensions.native
    return f"{model.name} ({entry.backend}, {entry.precision}, {dimensions} dimensions)"
