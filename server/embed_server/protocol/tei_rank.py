"""`/rerank` as text-embeddings-inference has it."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, Field, StrictStr

from embed_runtime.types import FloatArray
from embed_server.protocol.examples import examples
from embed_server.protocol.parsing import Many
from embed_server.protocol.score import RerankRequest
from embed_server.protocol.tei import MODEL, REMEDY, Truncating


class TeiRerankBody(Truncating):
    """A query, and the texts to put in order: known by `texts`, where others have `documents`."""

    model_config = examples('{"query": "a text", "texts": ["another", "a third"]}')

    known_by = ("texts", "documents")

    query: StrictStr = Field(description="What is looked for.")
    texts: Many[StrictStr] = Field(min_length=1, description="Where it is looked for.")
    raw_scores: bool = Field(default=False, description="No effect: similarities are given as is.")
    return_text: bool = Field(default=False, description="Whether each rank holds its text.")
    model: str | None = MODEL

    def to_rerank_request(self) -> RerankRequest:
        """Say the same in the words of the other API."""
        return _Translated.model_validate(
            {"query": self.query, "documents": self.texts, "model": self.model}
        )


class _Translated(RerankRequest):
    remedy: ClassVar[str] = REMEDY


class Rank(BaseModel):
    """One text, by its place in the request."""

    model_config = examples('{"index": 1, "text": "a third", "score": 0.8125}')

    index: int
    text: str | None = None
    score: float


def to_ranks(body: TeiRerankBody, scores: FloatArray) -> list[dict[str, object]]:
    """Give a list of `Rank`s, the best first; texts of equal score stay in their order."""
    ranks: list[dict[str, object]] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        rank: dict[str, object] = {"index": index, "score": float(scores[index])}
        if body.return_text:
            rank["text"] = body.texts[index]
        ranks.append(rank)
    return ranks
