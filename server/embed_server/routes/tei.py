"""`POST /embed`, `/`, `/embed_all`, `/embed_sparse`, `/similarity`, `/decode`.

The endpoints of text-embeddings-inference that have a path of their own.
"""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.types import EmbedRequest, EmbedResult
from embed_server.answers import json_answer
from embed_server.documentation import TEI_FAILURES, answer
from embed_server.endpoint import Endpoint
from embed_server.protocol.request import naming_the_remedy
from embed_server.protocol.tei import (
    REMEDY,
    SimilarityBody,
    SparseVectors,
    TeiEmbedBody,
    TeiVectorBody,
    TokenVectors,
    Vectors,
    to_similarities,
    to_sparse_vectors,
    to_token_vectors,
    to_vectors,
)
from embed_server.protocol.tei_tokens import DecodeBody, to_texts
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["text-embeddings-inference"])

VECTORS = [[0.5, -0.5, 0.5, 0.5], [0.1, 0.7, -0.1, 0.7]]
WEIGHTS = [[{"index": 1996, "value": 0.25}, {"index": 2944, "value": 1.5}]]
COSINES = [0.8125, 0.25]


@router.post("/embed", response_model=Vectors, responses=TEI_FAILURES | answer(VECTORS))
async def embed(request: Request, body: TeiVectorBody) -> Response:
    """Embed texts: one vector each."""
    work = service_of(request).allow_pieces(body.to_request())
    return await _answer(request, body.model, work, to_vectors)


@router.post("/embed_all", response_model=TokenVectors, responses=TEI_FAILURES | answer([VECTORS]))
async def embed_all(request: Request, body: TeiEmbedBody) -> Response:
    """Embed tokens: one vector each, special tokens included."""
    work = body.to_request("token_embed")
    return await _answer(request, body.model, work, to_token_vectors)


@router.post(
    "/embed_sparse", response_model=SparseVectors, responses=TEI_FAILURES | answer(WEIGHTS)
)
async def embed_sparse(request: Request, body: TeiEmbedBody) -> Response:
    """Weigh tokens of the vocabulary."""
    return await _answer(request, body.model, body.to_request("sparse"), to_sparse_vectors)


@router.post("/similarity", response_model=list[float], responses=TEI_FAILURES | answer(COSINES))
async def similarity(request: Request, body: SimilarityBody) -> Response:
    """Compare sentences with one: cosines, in their order."""
    return await _answer(request, body.model, body.to_request(), to_similarities)


@router.post("/", response_model=Vectors | SparseVectors, responses=TEI_FAILURES | answer(VECTORS))
async def root(request: Request, body: TeiVectorBody) -> Response:
    """Do what `/embed` does, or `/embed_sparse` where the model's vectors are weights of tokens."""
    sparse = service_of(request).find_model(body.model).manifest.sparse
    if sparse is None or sparse.output != "embedding":
        return await embed(request, body)
    return await _answer(request, body.model, body.to_request("sparse"), to_sparse_vectors)


@router.post("/decode", response_model=list[str], responses=TEI_FAILURES | answer(["the model"]))
async def decode(request: Request, body: DecodeBody) -> Response:
    """Turn token ids into text."""
    service = service_of(request)
    tokenizer = service.find_model(body.model).runtime.tokenizer
    service.check_num_inputs(len(body.ids))
    num_ids = sum(map(len, body.ids))
    service.check_tokenizing(num_ids, "token ids")
    texts = await asyncio.to_thread(to_texts, body, tokenizer)
    return await json_answer(lambda: texts, size=num_ids)


async def _answer(
    request: Request,
    name: str | None,
    work: EmbedRequest,
    to_answer: Callable[[EmbedResult], object],
) -> Response:
    service = service_of(request)
    with naming_the_remedy(REMEDY):
        result = await service.embed(request, service.find_model(name), work)
    return await json_answer(
        lambda: to_answer(result),
        size=result.vectors.size,
        headers={"x-compute-tokens": str(int(result.num_tokens.sum()))},
    )
