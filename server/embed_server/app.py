"""`create_app`: a runtime in, an ASGI application out."""

from pathlib import Path

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware

from embed_runtime.certificate import Certificate
from embed_runtime.runtime import Runtime
from embed_server.auth import OPEN_PATHS, ApiKeyGuard
from embed_server.config import ServerConfig
from embed_server.metrics import Metrics
from embed_server.middleware import Observer
from embed_server.routes import all_routers
from embed_server.service import Service

DESCRIPTION = """Embeddings of one compiled model, over OpenAI's and Cohere's APIs.

`/info` shows the model's manifest and the certificate of its vectors."""


def create_app(
    runtime: Runtime, config: ServerConfig, *, certificate: Certificate | None = None
) -> FastAPI:
    """Build the app; the caller keeps the runtime and closes it."""
    names = config.served_model_name or default_names(runtime.folder, runtime.manifest.model.id)
    metrics = Metrics(runtime, model=names[0])
    guard = [Middleware(ApiKeyGuard, api_keys=config.api_key)] if config.api_key else []
    app = FastAPI(
        title="embed-serve",
        description=DESCRIPTION,
        version="1",
        redoc_url=None,
        middleware=[Middleware(Observer, metrics=metrics), *guard],
    )
    app.state.service = Service(
        runtime=runtime,
        config=config,
        metrics=metrics,
        certificate=certificate,
        model_names=names,
    )
    # For the documentation page alone: `ApiKeyGuard` does the work, before any route is looked up.
    needs_key = [Security(HTTPBearer(auto_error=False))] if config.api_key else []
    for router in all_routers():
        is_open = all(getattr(route, "path", None) in OPEN_PATHS for route in router.routes)
        app.include_router(router, dependencies=[] if is_open else needs_key)
    return app


def default_names(folder: Path, model_id: str) -> tuple[str, ...]:
    """List what a model answers to: its bundle's folder, the last part of its id, the whole id."""
    return tuple(dict.fromkeys((folder.resolve().name, model_id.rpartition("/")[2], model_id)))
