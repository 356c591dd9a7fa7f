"""`/v1/embeddings`: OpenAI's request and answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, Field, model_validator

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.types import EmbedRequest, EmbedResult, Task
from embed_server.errors import SchemaError
from embed_server.protocol.chat import ChatFields, Conversations, Messages
from embed_server.protocol.encoding import EncodingFields, encode_values
from embed_server.protocol.examples import examples, list_example
from embed_server.protocol.inputs import ALLOWED, InputsOrMessages
from embed_server.protocol.request import RequestFields
from embed_server.protocol.shared import Usage, to_list_answer


class InputFields(RequestFields, EncodingFields, ChatFields):
    """What is to be embedded: `input` or `messages`, and how."""

    input: InputsOrMessages | None = Field(
        None, description="What to embed; token ids are used verbatim."
    )
    messages: Messages | None = Field(
        None,
        description="A conversation, or a list of them, instead of `input`: the model's chat "
        "template makes one text of each.",
    )
    dimensions: int | None = Field(None, description="Keep this many leading values.")
    prompt_name: str | None = Field(
        None, description="Extension: name of the model's prompt to put in front of every text."
    )
    add_special_tokens: bool = Field(
        True,
        description="Whether texts get the tokenizer's first and last tokens; by default not for "
        "messages, where the template writes them.",
    )

    @model_validator(mode="after")
    def _has_input(self) -> Self:
        if self.input is None and self.messages is None:
            raise SchemaError(
                f"input is required, {ALLOWED}; or messages instead of it", param="body.input"
            )
        return self

    @property
    def conversations(self) -> Conversations | None:
        """What a template must render first; None for texts and token ids."""
        if self.messages is not None:
            return self.messages
        return self.input if isinstance(self.input, Conversations) else None

    def find_task(self, manifest: Manifest) -> Task:
        """Say what the model shall compute."""
        return manifest.tasks[0]

    def to_request(self, manifest: Manifest, rendered: Sequence[str] = ()) -> EmbedRequest:
        """Say the same in the runtime's words.

        Args:
            manifest: The model's.
            rendered: The texts of `conversations`, if there are any.

        Raises:
            InputError: A field contradicts the model's limits.
        """
        truncate, max_tokens = self.truncation(manifest)
        is_chat = self.conversations is not None
        adds_tokens = self.add_special_tokens
        if is_chat and "add_special_tokens" not in self.model_fields_set:
            adds_tokens = False
        inputs = () if self.input is None or isinstance(self.input, Conversations) else self.input
        return EmbedRequest(
            inputs=rendered if is_chat else inputs,
            task=self.find_task(manifest),
            prompt_name=self.prompt_name,
            # A conversation says all there is to say: no default prompt comes in front.
            prompt="" if is_chat and self.prompt_name is None else None,
            dimensions=self.dimensions,
            normalize=self.use_activation,
            truncate=truncate,
            max_tokens=max_tokens,
            add_special_tokens=adds_tokens,
            use_cache=self.cache_salt is None,
        )


class EmbeddingsRequest(InputFields):
    """Texts, token ids or conversations to embed."""

    model_config = examples(
        '{"input": ["a text", "another"]}',
        '{"input": "a text", "encoding_format": "base64", "truncate_prompt_tokens": -1}',
        '{"input": [[101, 102]], "user": "someone"}',
    )

    prompt_name: str | None = Field(
        None,
        validation_alias=AliasChoices("prompt_name", "task"),
        description="Extension, also called `task`: name of the model's prompt to put in front of "
        "every text.",
    )
    pooling_task: Literal["embed", "token_embed"] | None = Field(
        None,
        description="Extension: `token_embed` answers with a list of vectors for each input, one "
        "for each of its tokens.",
    )
    late_chunking: bool = Field(
        False,
        description="Extension, as Jina's API has it: the inputs are the chunks of one text, in "
        "order, which is read as a whole; a vector is the mean of its chunk's tokens.",
    )

    late_chunking_params: object = Field(
        None, description="vLLM's chunks of equal length; refused: use `late_chunking`."
    )

    def check(self) -> None:
        """Refuse fields that would change the vectors and are not offered."""
        super().check()
        if self.late_chunking_params is not None:
            raise InputError(
                "late_chunking_params is not offered; send the chunks of one text as input, with"
                " late_chunking: true",
                param="late_chunking_params",
            )

    def find_task(self, manifest: Manifest) -> Task:
        """Say what the model shall compute."""
        return self.pooling_task or super().find_task(manifest)

    def to_request(self, manifest: Manifest, rendered: Sequence[str] = ()) -> EmbedRequest:
        """Say the same in the runtime's words; see `InputFields.to_request`."""
        work = super().to_request(manifest, rendered)
        return replace(work, late_chunking=True) if self.late_chunking else work


class EmbeddingItem(BaseModel):
    """One vector: a list of numbers, or a base64 text; a list of vectors for one a token."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | list[list[float]] | str


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the inputs."""

    model_config = list_example(
        "embd",
        '{"index": 0, "object": "embedding", "embedding": [0.5, -0.5, 0.5, 0.5]}',
    )

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[EmbeddingItem]
    usage: Usage


def to_answer(
    body: EmbeddingsRequest, result: EmbedResult, task: Task, *, answer_id: str, model: str
) -> dict[str, object]:
    """Give an `EmbeddingsResponse`; values stay in numpy."""
    items = [
        {"index": index, "object": "embedding", "embedding": values}
        for index, values in enumerate(encode_values(body, result, task))
    ]
    return to_list_answer(items, result, answer_id=answer_id, model=model)
