"""`Service`: what every endpoint works with, made once for each app."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from starlette.requests import Request

from embed_runtime.errors import InputError, OverloadedError, RequestTooLargeError
from embed_runtime.types import EmbedRequest, EmbedResult
from embed_server.chat import ChatRenderer
from embed_server.config import ServerConfig
from embed_server.disconnect import CancelOnDisconnect
from embed_server.errors import UnknownModelError
from embed_server.metrics import Metrics
from embed_server.protocol.chat import ChatFields
from embed_server.served_model import ServedModel

MAX_NAME_SHOWN = 100


class Service:
    """Some bundles, ready to answer.

    Attributes:
        models: The bundles, in the order of the command line.
        config: How to serve them.
        metrics: Where requests are counted.
        num_running: Requests that wait for vectors now.
    """

    def __init__(
        self, models: Sequence[ServedModel], *, config: ServerConfig, metrics: Metrics
    ) -> None:
        self.models = tuple(models)
        self.config = config
        self.metrics = metrics
        self.num_running = 0
        self._models_by_name = _by_name(self.models)
        self._renderer = ChatRenderer()

    def find_model(self, name: str | None) -> ServedModel:
        """Return the model of this name; no name, or an empty one, means the only model.

        Raises:
            UnknownModelError: It is not served here.
            InputError: No name is given, and there are several models.
        """
        if name:
            if name not in self._models_by_name:
                raise UnknownModelError(
                    f"model {name[:MAX_NAME_SHOWN]!r} does not exist; this server has "
                    + ", ".join(map(repr, self._models_by_name))
                )
            return self._models_by_name[name]
        if len(self.models) == 1:
            return self.models[0]
        raise InputError(
            "model must be named, because this server has several: "
            + ", ".join(repr(model.name) for model in self.models),
            param="model",
        )

    async def embed(self, request: Request, model: ServedModel, work: EmbedRequest) -> EmbedResult:
        """Compute vectors, or stop as soon as the client is gone.

        Raises:
            InputError: The work cannot be done as asked.
            RequestTooLargeError: It is more than one request may ask for.
            OverloadedError: Too much is waiting already.
            EngineError: The engine failed.
            DisconnectedError: The client left.
        """
        [result] = await self.embed_several(request, model, [work])
        return result

    async def embed_several(
        self, request: Request, model: ServedModel, works: Sequence[EmbedRequest]
    ) -> Sequence[EmbedResult]:
        """Compute vectors that one request needs in different ways, together; see `embed`."""
        self.check_num_inputs(sum(len(work.inputs) for work in works))
        if self.config.compat == "vllm":  # which does not know of default prompts
            works = [
                replace(work, prompt="")
                if work.prompt_name is None and work.prompt is None
                else work
                for work in works
            ]
        self.num_running += 1
        try:
            async with CancelOnDisconnect(request):
                if len(works) == 1:  # without a task of its own
                    results = [await model.run(works[0])]
                else:
                    results = await _run_together(model, works)
        finally:
            self.num_running -= 1
        self.metrics.observe_results(model.name, results)
        return results

    def allow_pieces(self, work: EmbedRequest) -> EmbedRequest:
        """Let overlong inputs be read in pieces, where that is switched on and none is cut."""
        if not self.config.enable_chunked_processing or work.late_chunking:
            return work
        if work.task != "embed" or work.max_tokens is not None:
            return work
        return replace(work, chunk=True, max_tokens=self.config.max_embed_len)

    async def render(
        self, request: Request, model: ServedModel, fields: ChatFields
    ) -> Sequence[str]:
        """Make texts of a request's conversations, by the chat template; none where it has none.

        Raises:
            RequestTooLargeError: There are more of them than one request may have inputs.
            DisconnectedError: The client left.
            InputError: There is no template that may run, or it fails.
            EngineError: The process that renders died.
        """
        if fields.conversations is None:
            return ()
        self.check_num_inputs(len(fields.conversations.items))
        task = fields.to_task(
            fields.conversations,
            template=model.chat_template,
            known=model.manifest.chat_template,
            trust_request=self.config.trust_request_chat_template,
            content_format=self.config.chat_template_content_format,
        )
        async with CancelOnDisconnect(request):
            return await self._renderer.render(task)

    def check_num_inputs(self, num_inputs: int) -> None:
        """Refuse more inputs than one request may have; call it before work is done for them.

        Raises:
            RequestTooLargeError: There are more.
        """
        _refuse_above(self.config.max_request_inputs, num_inputs, "inputs", "max_request_inputs")

    def check_tokenizing(self, size: int, unit: Literal["characters", "token ids"]) -> None:
        """Refuse more text, or ids of more text, than the tokenizer may be asked about at once.

        Raises:
            RequestTooLargeError: There is more.
        """
        _refuse_above(self.config.max_tokenize_chars, size, unit, "max_tokenize_chars")

    async def is_healthy(self) -> bool:
        """Tell whether every engine works."""
        return all([await model.is_healthy() for model in self.models])


def service_of(request: Request) -> Service:
    """Find the service of the app that got this request."""
    service: Service = request.app.state.service
    return service


def answer_id(request: Request, prefix: str, body_id: str | None = None) -> str:
    """Name an answer: by the caller's header, else by the id in the body, else at random."""
    state = request.state
    base = state.request_id if state.has_given_id or not body_id else body_id
    return f"{prefix}-{base}"


def _refuse_above(most: int, size: int, unit: str, name: str) -> None:
    if size > most:
        raise RequestTooLargeError(
            f"the request has {size} {unit}, and {name}={most}; split it, or start the server with"
            f" a larger --{name.replace('_', '-')}"
        )


async def _run_together(model: ServedModel, works: Sequence[EmbedRequest]) -> list[EmbedResult]:
    """Compute several works at once; where one fails, the others are dropped.

    One that finds the queue full is tried once more behind the others: it may be full of those.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_run_unless_full(model, work)) for work in works]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    answers = [task.result() for task in tasks]
    refusals = [answer for answer in answers if isinstance(answer, OverloadedError)]
    if len(refusals) == len(works):
        raise refusals[0]
    return [
        await model.run(work) if isinstance(answer, OverloadedError) else answer
        for work, answer in zip(works, answers, strict=True)
    ]


async def _run_unless_full(model: ServedModel, work: EmbedRequest) -> EmbedResult | OverloadedError:
    """Compute vectors; a full queue is an answer too, which stops no other work."""
    try:
        return await model.run(work)
    except OverloadedError as refusal:
        return refusal


def _by_name(models: Sequence[ServedModel]) -> Mapping[str, ServedModel]:
    by_name: dict[str, ServedModel] = {}
    for model in models:
        for name in dict.fromkeys(model.names):
            if name in by_name:
                raise InputError(
                    f"{by_name[name].runtime.folder} and {model.runtime.folder} are both called "
                    f"{name!r}; name them apart with NAME=PATH"
                )
            by_name[name] = model
    return by_name
