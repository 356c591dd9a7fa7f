"""The API of text-embeddings-inference: its requests, and its bare answers."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from embed_runtime.types import EmbedRequest, EmbedResult, Task, Truncate
from embed_server.protocol.examples import examples
from embed_server.protocol.parsing import Many, TeiBody, is_list

Direction: TypeAlias = Literal["Left", "Right", "left", "right"]


def _to_list(value: object) -> object:
    """Make a list of a single input; what else it may be is checked as a list."""
    is_one = isinstance(value, str) or (is_list(value) and isinstance(next(iter(value), None), int))
    return [value] if is_one else value


_ONE: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]
}

Inputs: TypeAlias = Annotated[
    Many[StrictStr | Many[StrictInt]],
    BeforeValidator(_to_list),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE}]}),
]

# What cuts overlong inputs in this API, for error messages.
REMEDY = "truncate=true"

MODEL = Field(None, description="Extension: a served model name; empty for the only model.")
PROMPT_NAME = Field(
    None, description="Name of the model's prompt to put in front of every text; by default its own"
)


class Truncating(TeiBody):
    """What every request says of overlong texts. Unknown fields are ignored."""

    truncate: bool | None = Field(
        default=False, description="Cut longer inputs; without it they are an error."
    )
    truncation_direction: Direction = Field(default="Right", description="The end to cut from.")

    @property
    def cut(self) -> Truncate:
        """The same in the runtime's words."""
        if not self.truncate:
            return "NONE"
        return "START" if self.truncation_direction.lower() == "left" else "END"


class TeiEmbedBody(Truncating):
    """Of `/embed_all` and `/embed_sparse`, and with more of `/embed`."""

    model_config = examples(
        '{"inputs": ["a text", "another"]}',
        '{"inputs": "a text", "truncate": true}',
    )

    inputs: Inputs = Field(description="A text, token ids, or a list of these.")
    model: str | None = MODEL
    prompt_name: str | None = PROMPT_NAME

    def to_request(self, task: Task) -> EmbedRequest:
        """Say the same in the runtime's words."""
        return EmbedRequest(
            inputs=self.inputs,
            task=task,
            prompt_name=self.prompt_name,
            truncate=self.cut,
        )


class TeiVectorBody(TeiEmbedBody):
    """Of `/embed`."""

    normalize: bool = Field(True, description="Scale vectors to unit length.")
    dimensions: int | None = Field(None, description="Keep this many leading values.")

    def to_request(self, task: Task = "embed") -> EmbedRequest:
        """Say the same in the runtime's words; of sparse weights nothing is scaled or cut."""
        work = super().to_request(task)
        if task == "sparse":
            return work
        return replace(work, normalize=self.normalize, dimensions=self.dimensions)


class SimilarityInputs(BaseModel):
    """What is compared with what."""

    source_sentence: StrictStr
    sentences: Many[StrictStr] = Field(min_length=1)


class SimilarityParameters(Truncating):
    """How it is read."""

    prompt_name: str | None = PROMPT_NAME


class SimilarityBody(TeiBody):
    """Of `/similarity`."""

    model_config = examples(
        '{"inputs": {"source_sentence": "a text", "sentences": ["another", "a third"]}}',
    )

    inputs: SimilarityInputs = Field(description="What to compare.")
    parameters: SimilarityParameters | None = Field(None, description="How to read it.")
    model: str | None = MODEL

    def to_request(self) -> EmbedRequest:
        """Ask for the unit vectors of the source and of the sentences, in this order."""
        parameters = self.parameters or SimilarityParameters()
        return EmbedRequest(
            inputs=[self.inputs.source_sentence, *self.inputs.sentences],
            prompt_name=parameters.prompt_name,
            truncate=parameters.cut,
            normalize=True,
            name_input=_name_sentence,
        )


class SparseValue(BaseModel):
    """The weight of one token of the vocabulary."""

    index: int
    value: float


class TeiErrorBody(BaseModel):
    """The body of every failure, except for a missing key (401) and an unknown path (404)."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation"]


Vectors: TypeAlias = list[list[float]]
TokenVectors: TypeAlias = list[list[list[float]]]
SparseVectors: TypeAlias = list[list[SparseValue]]


def _name_sentence(index: int) -> str:
    return f"sentence {index - 1}" if index else "source_sentence"


def to_vectors(result: EmbedResult) -> object:
    """Give `Vectors`."""
    return result.vectors


def to_token_vectors(result: EmbedResult) -> object:
    """Give `TokenVectors`."""
    return [result.vectors[start:stop] for start, stop in _spans(result)]


def to_sparse_vectors(result: EmbedResult) -> object:
    """Give `SparseVectors`."""
    assert result.token_ids is not None
    return [
        [
            {"index": index, "value": value}
            for index, value in zip(
                result.token_ids[start:stop].tolist(), result.vectors[start:stop], strict=True
            )
        ]
        for start, stop in _spans(result)
    ]


def to_similarities(result: EmbedResult) -> object:
    """Give the cosines of the first vector with all others."""
    return result.vectors[1:] @ result.vectors[0]


def _spans(result: EmbedResult) -> Iterator[tuple[int, int]]:
    return pairwise(result.offsets.tolist())
