"""`create_app`: open bundles in, an ASGI application out."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from embed_server.auth import OPEN_PATHS, ApiKeyGuard
from embed_server.config import ServerConfig
from embed_server.deadline import Deadline
from embed_server.dispatch import Dispatch
from embed_server.documentation import UNAUTHORIZED, DocumentedApp, choose
from embed_server.errors import CONTRACT, STRICT
from embed_server.metrics import Metrics
from embed_server.middleware import Observer
from embed_server.routes import all_routers
from embed_server.served_model import ServedModel
from embed_server.service import Service

DESCRIPTION = """Embeddings of compiled models, over the APIs of OpenAI, Cohere and
text-embeddings-inference.

`/info` shows a model's manifest and the certificate of its vectors."""

# What a web page's script may read of an answer, beside its body.
EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "metadata")


def create_app(models: Sequence[ServedModel], config: ServerConfig) -> FastAPI:
    """Build the app; the caller keeps the models' runtimes and closes them.

    Raises:
        InputError: Two models have the same name.
    """
    metrics = Metrics(models)
    app = DocumentedApp(
        title="embed-serve",
        description=DESCRIPTION,
        version="1",
        redoc_url=None,
        docs_url=None if config.disable_fastapi_docs else "/docs",
        openapi_url=None if config.disable_fastapi_docs else "/openapi.json",
        # Off for each request, instead of asking each time whether somebody set it up.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=_middleware(config, metrics),
    )
    app.state.service = Service(models, config=config, metrics=metrics)
    # For the documentation page alone: `ApiKeyGuard` does the work, before any route is looked up.
    needs_key = [Security(HTTPBearer(auto_error=False))] if config.api_key else []
    for router in all_routers():
        is_open = all(getattr(route, "path", None) in OPEN_PATHS for route in router.routes)
        app.include_router(
            router,
            dependencies=[] if is_open else needs_key,
            responses=choose(500) | ({} if is_open else UNAUTHORIZED),
        )
    return app


def _middleware(config: ServerConfig, metrics: Metrics) -> list[Middleware]:
    """List what stands around the endpoints, the outermost first."""
    layers = [
        Middleware(
            Observer,
            metrics=metrics,
            dialect=STRICT if config.compat == "vllm" else CONTRACT,
            log_level=logging.INFO if config.access_log else logging.DEBUG,
            unlogged_paths=config.unlogged_paths,
        )
    ]
    if config.max_request_seconds is not None:
        layers.append(Middleware(Deadline, seconds=config.max_request_seconds))
    if config.api_key:
        layers.append(Middleware(ApiKeyGuard, api_keys=config.api_key))
    if config.allowed_origins:
        # Around the others, because pages must be able to read failures too.
        cors = Middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=config.allowed_methods,
            allow_headers=config.allowed_headers,
            allow_credentials=config.allow_credentials,
            expose_headers=EXPOSED_HEADERS,
        )
        layers.insert(0, cors)
    layers.append(Middleware(Dispatch, routers=all_routers()))
    return layers
