"""`POST /invocations`: SageMaker's one path; the body says which endpoint is meant."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, get_args

from fastapi import APIRouter
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.types import Task
from embed_server.documentation import BYTES, FAILURES, TEI_FAILURES, either
from embed_server.endpoint import Endpoint, read_body, speak_as
from embed_server.errors import SchemaError
from embed_server.protocol.cohere import EmbedBody, EmbedResponse
from embed_server.protocol.openai import EmbeddingsRequest, EmbeddingsResponse
from embed_server.protocol.parsing import is_list, parse_body
from embed_server.protocol.pooling import PoolingRequest, PoolingResponse
from embed_server.protocol.score import RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from embed_server.protocol.tei import SparseVectors, TeiVectorBody, Vectors
from embed_server.protocol.tei_rank import Rank, TeiRerankBody
from embed_server.routes.embed import embed
from embed_server.routes.embeddings import embeddings
from embed_server.routes.pooling import pooling
from embed_server.routes.rerank import rank_texts, rerank
from embed_server.routes.score import score
from embed_server.routes.tei import root

router = APIRouter(route_class=Endpoint, tags=["service"])

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

# The first line whose fields are all in the body counts.
SHAPES: tuple[tuple[tuple[str, ...], type[BaseModel], Handler], ...] = (
    (("query", "documents"), RerankRequest, rerank),
    (("query", "texts"), TeiRerankBody, rank_texts),
    (("queries",), ScoreRequest, score),
    (("data_1",), ScoreRequest, score),
    (("text_1",), ScoreRequest, score),
    (("texts",), EmbedBody, embed),
    (("inputs",), TeiVectorBody, root),
    (("images",), EmbedBody, embed),
    (("input",), EmbeddingsRequest, embeddings),
    (("messages",), EmbeddingsRequest, embeddings),
)

_OBJECT: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])

BODIES: tuple[type[BaseModel], ...] = (*(body for _, body, _ in SHAPES), PoolingRequest)
ANY_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{name}"}
                        for name in dict.fromkeys(body.__name__ for body in BODIES)
                    ]
                },
                "example": {"input": ["a text", "another"]},
            }
        },
    }
}
AnyAnswer: TypeAlias = (
    EmbeddingsResponse
    | PoolingResponse
    | EmbedResponse
    | ScoreResponse
    | RerankResponse
    | list[Rank]
    | Vectors
    | SparseVectors
)


@router.post(
    "/invocations",
    response_model=AnyAnswer,
    responses=either(FAILURES, TEI_FAILURES) | BYTES,
    openapi_extra=ANY_BODY,
)
async def invocations(request: Request) -> Response:
    """Answer as the endpoint does whose body this is: embeddings, pooling, score, rerank, embed."""
    content = await read_body(request)
    given = _read_fields(content)
    for names, body, handler in SHAPES:
        if given.keys() >= set(names):
            if handler is embeddings and given.get("task") in get_args(Task):
                return await pooling(request, parse_body(PoolingRequest, content))
            if handler is root and _has_parts(given["inputs"]):
                return await embed(request, parse_body(EmbedBody, content))
            speak_as(body, request)
            return await handler(request, parse_body(body, content))
    raise SchemaError(
        "the body is none of those known here; it needs input, messages, texts, queries and"
        " documents, or query and documents",
        param="body",
    )


def _has_parts(inputs: object) -> bool:
    """Tell Cohere's inputs, which are objects, from text-embeddings-inference's."""
    return is_list(inputs) and isinstance(next(iter(inputs), None), dict)


def _read_fields(content: bytes) -> dict[str, object]:
    """Read the fields of a body; none where it is no object, which the endpoint's parser says."""
    try:
        return _OBJECT.validate_json(content)
    except ValidationError:
        parse_body(EmbeddingsRequest, content)
        return {}
