"""`/pooling`: vLLM's request and answer, for every task of the model."""

from typing import Literal

from pydantic import BaseModel, Field

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.types import EmbedResult, Task
from embed_server.protocol.encoding import encode_values
from embed_server.protocol.examples import examples, list_example
from embed_server.protocol.openai import InputFields
from embed_server.protocol.shared import Usage, to_list_answer

# Names that vLLM had, and what it calls them now.
_REMOVED = {"score": "classify", "encode": "token_embed"}


class PoolingRequest(InputFields):
    """What to compute of texts, token ids or conversations."""

    model_config = examples(
        '{"input": ["a text", "another"]}',
        '{"input": "a text", "task": "token_embed"}',
    )

    task: str | None = Field(
        None,
        description="One of the model's tasks, by default `embed`: one vector an input; "
        "`token_embed`: one a token; `sparse`: weights of tokens of the vocabulary.",
    )

    def find_task(self, manifest: Manifest) -> Task:
        """Look the task up among the model's.

        Raises:
            InputError: The model does not have it.
        """
        if self.task is None:
            return manifest.tasks[0]
        for task in manifest.tasks:
            if task == self.task:
                return task
        renamed = _REMOVED.get(self.task)
        hint = f" ({self.task!r} was renamed {renamed!r})" if renamed else ""
        raise InputError(
            f"task={self.task!r:.80} is not what this model does{hint}: "
            + ", ".join(manifest.tasks),
            param="task",
        )


class SparseVector(BaseModel):
    """Weights of tokens of the vocabulary; lists of numbers, or base64 texts of them."""

    indices: list[int] | str
    values: list[float] | str


class PoolingItem(BaseModel):
    """One input's vector, vectors of its tokens, base64 of either, or weights."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float] | list[list[float]] | SparseVector | str


class PoolingResponse(BaseModel):
    """Results in the order of the inputs."""

    model_config = list_example(
        "pooling",
        '{"index": 0, "object": "pooling", "data": [0.5, -0.5, 0.5, 0.5]}',
    )

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PoolingItem]
    usage: Usage


def to_answer(
    body: PoolingRequest, result: EmbedResult, task: Task, *, answer_id: str, model: str
) -> dict[str, object]:
    """Give a `PoolingResponse`; values stay in numpy."""
    items = [
        {"index": index, "object": "pooling", "data": values}
        for index, values in enumerate(encode_values(body, result, task))
    ]
    return to_list_answer(items, result, answer_id=answer_id, model=model)
