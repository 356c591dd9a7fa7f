"""`/v1/embeddings`: OpenAI's request and answer."""

import json
import time
from typing import Literal, TypeAlias

import orjson
from pydantic import AliasChoices, BaseModel, Field

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.types import EmbedRequest, EmbedResult, Truncate
from embed_runtime.vectors import ByteArray, EmbedDtype, Endianness, to_base64, to_bytes
from embed_server.protocol.inputs import Inputs
from embed_server.protocol.shared import Usage, check_limit, count_usage

EncodingFormat: TypeAlias = Literal["float", "base64", "bytes", "bytes_only"]


class EmbeddingsRequest(BaseModel):
    """Unknown fields are ignored, as OpenAI-compatible servers do."""

    input: Inputs = Field(description="What to embed; token ids are used verbatim.")
    model: str | None = Field(None, description="A served model name; empty for the only model.")
    user: str | None = Field(None, description="Ignored.")
    encoding_format: EncodingFormat = Field(
        "float",
        description="`bytes` answers with the vectors' bytes one after another and describes them "
        "in the header `metadata`; `bytes_only` leaves the header out.",
    )
    embed_dtype: EmbedDtype = Field(
        "float32", description="Type of the values in base64 and bytes."
    )
    endianness: Endianness = Field("native", description="Byte order in base64 and bytes.")
    dimensions: int | None = Field(None, description="Keep this many leading values.")
    prompt_name: str | None = Field(
        None,
        validation_alias=AliasChoices("prompt_name", "task"),
        description="Extension: name of the model's prompt to put in front of every text, and of "
        "the adapter to use, where the model has one of this name. `task` means the same.",
    )
    use_activation: bool | None = Field(
        None, description="Scale vectors to unit length; by default, what the model does."
    )
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="Cut inputs to this many tokens, special tokens included; -1 for the model's "
        "maximum. Without it a longer input is an error.",
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="The side to cut from; special tokens stay on either side."
    )
    padding: Literal["do_not_pad"] | None = Field(None, description="Inputs are never padded.")
    add_special_tokens: bool = Field(
        True, description="Whether texts get the tokenizer's first and last tokens."
    )
    request_id: str | None = Field(None, description="Becomes part of the answer's id.")
    normalize: object = Field(None, description="Removed: use `use_activation`.", deprecated=True)

    def to_request(self, manifest: Manifest) -> EmbedRequest:
        """Say the same in the runtime's words.

        Raises:
            InputError: A field contradicts the model's limits, or no longer exists.
        """
        if "normalize" in self.model_fields_set:
            raise InputError("normalize was removed; use use_activation", param="normalize")
        limit = self.truncate_prompt_tokens
        check_limit("truncate_prompt_tokens", limit, manifest)
        cut: Truncate = "START" if self.truncation_side == "left" else "END"
        return EmbedRequest(
            inputs=self.input,
            prompt_name=self.prompt_name,
            dimensions=self.dimensions,
            normalize=self.use_activation,
            truncate="NONE" if limit is None else cut,
            max_tokens=None if limit == -1 else limit,
            add_special_tokens=self.add_special_tokens,
        )


class EmbeddingItem(BaseModel):
    """One vector: a list of numbers, or a base64 text."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | str


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[EmbeddingItem]
    usage: Usage


def encode_json(
    body: EmbeddingsRequest, result: EmbedResult, *, answer_id: str, model: str
) -> bytes:
    """Write an `EmbeddingsResponse`; values go from numpy to text without Python floats."""
    embeddings = (
        to_base64(result.vectors, dtype=body.embed_dtype, endianness=body.endianness)
        if body.encoding_format == "base64"
        else result.vectors
    )
    answer = {
        "id": answer_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": index, "object": "embedding", "embedding": embedding}
            for index, embedding in enumerate(embeddings)
        ],
        "usage": count_usage(result),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_bytes(body: EmbeddingsRequest, result: EmbedResult) -> ByteArray:
    """Write the vectors alone: [N, bytes of one vector], row after row."""
    return to_bytes(result.vectors, dtype=body.embed_dtype, endianness=body.endianness)


def describe_bytes(
    body: EmbeddingsRequest, result: EmbedResult, rows: ByteArray, *, answer_id: str, model: str
) -> str:
    """Say in ASCII JSON, for a header, where in the bytes each vector is."""
    num_bytes = rows.shape[1]
    answer = {
        "id": answer_id,
        "created": int(time.time()),
        "model": model,
        "data": [
            {
                "index": index,
                "embed_dtype": body.embed_dtype,
                "endianness": body.endianness,
                "start": index * num_bytes,
                "end": (index + 1) * num_bytes,
                "shape": [result.vectors.shape[1]],
            }
            for index in range(len(rows))
        ],
        "usage": {
            name: count
            for name, count in count_usage(result).items()
            if name in ("prompt_tokens", "total_tokens")
        },
    }
    return json.dumps(answer)
