"""`Service`: what every endpoint works with, made once for each app."""

from dataclasses import dataclass, field

from starlette.requests import Request

from embed_runtime.certificate import Certificate
from embed_runtime.errors import ClosedError, EngineError, OverloadedError
from embed_runtime.runtime import Runtime
from embed_runtime.types import EmbedRequest, EmbedResult
from embed_server.config import ServerConfig
from embed_server.disconnect import CancelOnDisconnect
from embed_server.errors import UnknownModelError
from embed_server.metrics import Metrics

MAX_NAME_SHOWN = 100


@dataclass(slots=True, kw_only=True)
class Service:
    """One bundle, ready to answer.

    Attributes:
        runtime: Computes the vectors.
        config: How to serve them.
        metrics: Where requests are counted.
        certificate: The bundle's, if it has one.
        model_names: What requests may call the model by; the first is reported back.
        engine_failed: Whether the engine failed, or was gone, the last time it was asked.
    """

    runtime: Runtime
    config: ServerConfig
    metrics: Metrics
    certificate: Certificate | None
    model_names: tuple[str, ...]
    engine_failed: bool = field(default=False, init=False)

    def find_model(self, name: str | None) -> str:
        """Return the name to report back; no name, or an empty one, means the only model.

        Raises:
            UnknownModelError: It is not served here.
        """
        if name and name not in self.model_names:
            raise UnknownModelError(
                f"model {name[:MAX_NAME_SHOWN]!r} does not exist; this server has "
                f"{', '.join(map(repr, self.model_names))}"
            )
        return self.model_names[0]

    async def embed(self, request: Request, work: EmbedRequest) -> EmbedResult:
        """Compute vectors, or stop as soon as the client is gone.

        Raises:
            InputError: The work cannot be done as asked.
            OverloadedError: Too much is waiting already.
            EngineError: The engine failed.
            DisconnectedError: The client left.
        """
        async with CancelOnDisconnect(request):
            result = await self._run(work)
        self.metrics.observe_result(result)
        return result

    async def is_healthy(self) -> bool:
        """Tell whether the engine works: by its last answer, and after a failure by a new try."""
        if self.engine_failed:
            try:
                await self._run(EmbedRequest(inputs=["health"]))
            except (EngineError, ClosedError):
                return False
            except OverloadedError:
                return True  # a full queue says nothing against the engine
        return True

    async def _run(self, work: EmbedRequest) -> EmbedResult:
        try:
            result = await self.runtime.asubmit(work)
        except (EngineError, ClosedError):
            self.engine_failed = True
            raise
        self.engine_failed = False
        return result


def service_of(request: Request) -> Service:
    """Find the service of the app that got this request."""
    service: Service = request.app.state.service
    return service


def answer_id(request: Request, prefix: str, body_id: str | None = None) -> str:
    """Name an answer: by the caller's header, else by the id in the body, else at random."""
    state = request.state
    base = state.request_id if state.has_given_id or not body_id else body_id
    return f"{prefix}-{base}"
