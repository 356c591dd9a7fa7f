"""Scores of a request's pairs: for every endpoint that compares queries with documents."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from embed_runtime.scoring import Side, check_pairs, score_results
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, Truncate
from embed_server.disconnect import CancelOnDisconnect
from embed_server.protocol.request import naming_the_remedy
from embed_server.protocol.score import ScoreFields
from embed_server.served_model import ServedModel
from embed_server.service import service_of


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
    """
    fields.check()
    check_pairs(len(queries), len(documents))
    service = service_of(request)
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
    left, right = results
    return score_results(left, right, model.manifest, fields.task), results


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
