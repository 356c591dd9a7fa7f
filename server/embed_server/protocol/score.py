"""`/score` and `/rerank`: vLLM's requests and answers, and Cohere's and Jina's where they agree."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, model_validator

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.scoring import Side, for_side
from embed_runtime.types import EmbedRequest, EmbedResult, FloatArray, Truncate
from embed_server.errors import SchemaError
from embed_server.protocol.chat import ContentPart
from embed_server.protocol.examples import examples, list_example
from embed_server.protocol.parsing import Many, is_list
from embed_server.protocol.request import RequestFields
from embed_server.protocol.shared import Usage, count_tokens, to_list_answer

# Spellings of the two sides, in the order in which they are looked for.
_SPELLINGS = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)


class TextItem(BaseModel):
    """A text in an object: `text`, or `content` of text parts, which are joined by lines."""

    text: str | None = None
    content: Annotated[Many[ContentPart], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.text is None) == (self.content is None):
            raise ValueError("an item is a string, or an object with either text or content")
        return self


Item: TypeAlias = str | TextItem


def _to_list(value: object) -> object:
    return value if is_list(value) else [value]


Items: TypeAlias = Annotated[
    Many[Item],
    BeforeValidator(_to_list, json_schema_input_type=list[Item] | Item),
    Field(min_length=1),
]


def to_texts(items: Sequence[Item]) -> list[str]:
    """Give the text of each item.

    Raises:
        InputError: One has a part that is no text.
    """
    return [_to_text(item) for item in items]


def _to_text(item: Item) -> str:
    if isinstance(item, str):
        return item
    if item.text is not None:
        return item.text
    return "\n".join(part.to_text() for part in item.content or ())


class ScoreFields(RequestFields):
    """What scoring and reranking share."""

    task: Literal["embed", "token_embed"] = Field(
        "embed",
        description="Extension: `token_embed` compares vectors of tokens (MaxSim), as ColBERT.",
    )
    query_prompt_name: str | None = Field(
        None,
        description="Extension: name of the prompt in front of queries; by default the model's "
        "own for queries, if it has one.",
    )
    document_prompt_name: str | None = Field(None, description="Extension: the same for documents.")
    max_tokens_per_query: int = Field(
        0, ge=0, description="Cut queries behind so many tokens of their own; 0 leaves them whole."
    )
    max_tokens_per_doc: int = Field(0, ge=0, description="The same for documents.")
    instruction: str | None = Field(
        None, description="No effect: for models that read a query and a document together."
    )

    def to_request(
        self,
        side: Side,
        texts: Sequence[str],
        manifest: Manifest,
        *,
        truncate: Truncate,
        own_prompts: bool,
    ) -> EmbedRequest:
        """Ask for the vectors of one side.

        Args:
            side: Which.
            texts: Its texts.
            manifest: The model's.
            truncate: What becomes of overlong texts where the request does not say.
            own_prompts: Whether the model's own prompts are used where the request names none.

        Raises:
            InputError: A field contradicts the model's limits.
        """
        truncate, max_tokens = self.truncation(manifest, default=truncate)
        name = self.query_prompt_name if side == "query" else self.document_prompt_name
        request = EmbedRequest(
            inputs=texts,
            task=self.task,
            prompt_name=name,
            prompt=None if own_prompts or name else "",
            truncate=truncate,
            max_tokens=max_tokens,
            use_cache=self.cache_salt is None,
        )
        return for_side(request, side, manifest)

    def max_content_tokens(self, side: Side, manifest: Manifest) -> int | None:
        """Say behind how many tokens of their own texts are cut; None for not at all.

        Raises:
            InputError: It is as much as the model takes, or more.
        """
        name = "max_tokens_per_query" if side == "query" else "max_tokens_per_doc"
        limit: int = getattr(self, name)
        if limit >= manifest.max_tokens:
            raise InputError(
                f"{name}={limit} must be below the model's maximum of {manifest.max_tokens};"
                " leave it out, or cut at the maximum with truncate_prompt_tokens=-1"
            )
        return limit or None


class ScoreRequest(ScoreFields):
    """Two sides to compare: one with one, one with each, or pair by pair."""

    model_config = examples(
        '{"queries": "a text", "documents": ["another", "a third"]}',
        '{"text_1": ["a text", "another"], "text_2": ["a third", {"text": "a fourth"}]}',
    )

    queries: Items | None = Field(None, description="One query for all documents, or one for each.")
    documents: Items | None = Field(None, description="What to compare with the queries.")
    items: Items | None = Field(None, description="The same as `documents`.")
    data_1: Items | None = Field(None, description="The same as `queries`, beside `data_2`.")
    data_2: Items | None = Field(None, description="The same as `documents`, beside `data_1`.")
    text_1: Items | None = Field(None, description="The same as `queries`, beside `text_2`.")
    text_2: Items | None = Field(None, description="The same as `documents`, beside `text_1`.")

    @model_validator(mode="after")
    def _has_two_sides(self) -> Self:
        if self.spelling is None:
            raise SchemaError(
                "two sides are required: queries and documents (or items), data_1 and data_2, or"
                " text_1 and text_2",
                param="body.queries",
            )
        return self

    @property
    def spelling(self) -> tuple[str, str] | None:
        """The names under which this request gives its two sides."""
        for left, right in _SPELLINGS:
            if getattr(self, left) is not None and getattr(self, right) is not None:
                return left, right
        return None

    def sides(self) -> tuple[list[str], list[str]]:
        """Give the texts of both sides.

        Raises:
            InputError: An item has a part that is no text.
        """
        assert self.spelling is not None
        left, right = self.spelling
        return to_texts(getattr(self, left)), to_texts(getattr(self, right))


class RerankRequest(ScoreFields):
    """A query, and the documents to put in order."""

    model_config = examples(
        '{"query": "a text", "documents": ["another", {"text": "a third"}], "top_n": 1}',
    )

    query: Item = Field(description="What is looked for.")
    documents: Items = Field(description="Where it is looked for: texts, or objects with `text`.")
    top_n: int | None = Field(
        None, ge=0, description="How many of the best documents to return; 0 or none for all."
    )
    return_documents: bool | None = Field(
        True, description="Whether each result holds its document's text."
    )


class ScoreItem(BaseModel):
    """One pair's score; the higher, the better the fit."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(BaseModel):
    """Scores in the order of the documents."""

    model_config = list_example(
        "score",
        '{"index": 0, "object": "score", "score": 0.8125}',
    )

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreItem]
    usage: Usage


class RankedDocument(BaseModel):
    """A document's text."""

    text: str
    multi_modal: None = None


class RankedItem(BaseModel):
    """One document, by its place in the request."""

    index: int
    document: RankedDocument | None = None
    relevance_score: float


class RerankUsage(BaseModel):
    """Tokens the model read."""

    prompt_tokens: int
    total_tokens: int


class RerankResponse(BaseModel):
    """Documents, the best first."""

    model_config = examples(
        """{"id": "score-7766554433221100", "model": "all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 14, "total_tokens": 14},
        "results": [{"index": 1, "relevance_score": 0.8125,
            "document": {"text": "a third", "multi_modal": null}}]}""",
    )

    id: str
    model: str
    usage: RerankUsage
    results: list[RankedItem]


def to_score_answer(
    scores: FloatArray, results: Sequence[EmbedResult], *, answer_id: str, model: str
) -> dict[str, object]:
    """Give a `ScoreResponse`."""
    items = [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    return to_list_answer(items, *results, answer_id=answer_id, model=model)


def to_ranking(
    body: RerankRequest,
    documents: Sequence[str],
    scores: FloatArray,
    results: Sequence[EmbedResult],
    *,
    answer_id: str,
    model: str,
) -> dict[str, object]:
    """Give a `RerankResponse`; documents of equal score stay in their order."""
    ranking = np.argsort(-scores, kind="stable")[: body.top_n or None].tolist()
    items: list[dict[str, Any]] = []
    for index in ranking:
        item: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if body.return_documents:
            item["document"] = {"text": documents[index], "multi_modal": None}
        items.append(item)
    return {"id": answer_id, "model": model, "usage": count_tokens(*results), "results": items}
