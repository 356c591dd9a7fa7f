"""A result taken apart: one `PoolingOutput` for each input."""

from collections.abc import Iterator

from embed_runtime.types import EmbedResult, FloatArray, PoolingOutput, Task


def to_vectors(result: EmbedResult, task: Task) -> Iterator[PoolingOutput[FloatArray]]:
    """Give each input its vector, or for `token_embed` the vectors of its tokens."""
    for index, num_tokens in enumerate(result.num_tokens.tolist()):
        start, stop = result.offsets[index], result.offsets[index + 1]
        rows = result.vectors[start:stop]
        yield PoolingOutput(data=rows[0] if task == "embed" else rows, num_tokens=num_tokens)


def to_weights(result: EmbedResult) -> Iterator[PoolingOutput[dict[int, float]]]:
    """Give each input its positive weights by token id."""
    assert result.token_ids is not None
    for index, num_tokens in enumerate(result.num_tokens.tolist()):
        own = slice(result.offsets[index], result.offsets[index + 1])
        ids, weights = result.token_ids[own].tolist(), result.vectors[own].tolist()
        yield PoolingOutput(data=dict(zip(ids, weights, strict=True)), num_tokens=num_tokens)
