"""Scores of a request's pairs: for every endpoint that compares queries with documents."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from embed_runtime.manifest import Manifest
from embed_runtime.scoring import Side, check_pairs, score_results
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, Task, Truncate
from embed_server.disconnect import CancelOnDisconnect
from embed_server.protocol.request import naming_the_remedy
from embed_server.protocol.score import ScoreFields
from embed_server.served_model import ServedModel
from embed_server.service import service_of

# Sides of at most so many values each are compared on the event loop: under 1 ms.
_MAX_VALUES_AT_ONCE = 2**16


async def score_pairs(
    request: Request,
    model: ServedModel,
    fields: ScoreFields,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    truncate: Truncate = "NONE",
) -> tuple[FloatArray, Sequence[EmbedResult]]:
    """Score documents by the similarity of their vectors with the queries'.

    Args:
        request: On whose behalf.
        model: Which computes the vectors.
        fields: How to read the texts.
        queries: One, or as many as documents.
        documents: At least one.
        truncate: What becomes of overlong texts where the request does not say.

    Returns:
        [N] float32, one score for each document; and what it took.

    Raises:
        InputError: The sides cannot be paired, or a field asks for what the model cannot do.
        RequestTooLargeError: There are more texts than one request may have inputs.
    """
    fields.check()
    check_pairs(len(queries), len(documents))
    service = service_of(request)
    service.check_num_inputs(len(queries) + len(documents))
    pairs: tuple[tuple[Side, Sequence[str]], ...] = (("query", queries), ("document", documents))
    works: list[EmbedRequest] = []
    for side, texts in pairs:
        limit = fields.max_content_tokens(side, model.manifest)
        work = fields.to_request(
            side,
            await _shorten(request, model.runtime.tokenizer, texts, limit),
            model.manifest,
            truncate=truncate,
            own_prompts=service.config.compat is None,
        )
        works.append(work)
    with naming_the_remedy(fields.remedy):
        results = await service.embed_several(request, model, works)
    return await _score(results, model.manifest, fields.task), results


async def _score(results: Sequence[EmbedResult], manifest: Manifest, task: Task) -> FloatArray:
    """Compare the two sides; off the event loop, unless that takes less than going there."""
    queries, documents = results
    if max(queries.vectors.size, documents.vectors.size) <= _MAX_VALUES_AT_ONCE:
        return score_results(queries, documents, manifest, task)
    return await asyncio.to_thread(score_results, queries, documents, manifest, task)


async def _shorten(
    request: Request, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int | None
) -> Sequence[str]:
    """Cut texts behind their first tokens, off the event loop, while the client is there."""
    if max_tokens is None:
        return texts

    def shorten() -> list[str]:
        return [tokenizer.shorten(text, max_tokens) for text in texts]

    async with CancelOnDisconnect(request):
        return await asyncio.to_thread(shorten)
