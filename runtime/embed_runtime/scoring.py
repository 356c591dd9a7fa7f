"""How well documents fit queries: what each side is embedded with, and how the two meet."""

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.similarity import compare, max_sim
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, Task

Side: TypeAlias = Literal["query", "document"]

# Names of prompts, and of the adapters behind them, that models give the two sides of a search:
# those that Sentence-Transformers' `encode_query` and `encode_document` look for, then Nomic's and
# Jina's.
SIDES: dict[Side, tuple[str, ...]] = {
    "query": ("query", "search_query", "retrieval.query"),
    "document": ("document", "passage", "corpus", "search_document", "retrieval.passage"),
}


def check_pairs(num_queries: int, num_documents: int) -> None:
    """Refuse what cannot be paired.

    Raises:
        InputError: There are neither one query nor as many as documents.
    """
    if num_queries not in (1, num_documents):
        raise InputError(
            f"{num_queries} queries and {num_documents} documents cannot be paired: give one query,"
            " or as many as documents",
            param="queries",
        )


def for_side(request: EmbedRequest, side: Side, manifest: Manifest) -> EmbedRequest:
    """Complete a request for one side of a score.

    Without a prompt or its name it gets the model's own for this side. A model that has one for
    the other side only gets none here; a model with neither, its default prompt.
    """
    request = replace(request, name_input=f"{side} {{}}".format)
    if manifest.similarity == "cosine" or request.task == "token_embed":
        request = replace(request, normalize=True)
    if request.prompt is not None or request.prompt_name is not None:
        return request
    for name in SIDES[side]:
        if name in manifest.prompts:
            return replace(request, prompt_name=name)
    has_other_side = any(name in manifest.prompts for names in SIDES.values() for name in names)
    return replace(request, prompt="") if has_other_side else request


def score_results(
    queries: EmbedResult, documents: EmbedResult, manifest: Manifest, task: Task
) -> FloatArray:
    """Score the pairs of two results.

    Args:
        queries: One, or as many as documents.
        documents: At least one.
        manifest: The model's.
        task: What the results are of, `embed` or `token_embed`.

    Returns:
        [N] float32, one score for each document; for vectors of tokens, the sum over the query's
        tokens of the best dot product with one of the document's (MaxSim).
    """
    if task == "embed":
        return compare(queries.vectors, documents.vectors, manifest.similarity)
    lefts, rights = (
        np.split(result.vectors, result.offsets[1:-1]) for result in (queries, documents)
    )
    if len(lefts) == 1:
        lefts = lefts * len(rights)
    return np.array([max_sim(*pair) for pair in zip(lefts, rights, strict=True)], np.float32)
