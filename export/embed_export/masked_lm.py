"""The head of a masked language model, which scores every word of the vocabulary at each token."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embed_export.errors import UnsupportedModelError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.layers import (
    Activation,
    activate,
    layer_norm,
    linear,
    read_linear,
    read_norm,
)
from embed_export.weights import Weights
from embed_runtime.types import FloatArray

# What the recipes with such a head call their word embeddings, in checkpoints and in graphs.
_WORDS, _WORDS_TENSOR = "embeddings.word", "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLm:
    """How one architecture spells its head: a linear layer, a norm, and a row for each word.

    Attributes:
        dense: Name of the linear layer.
        norm: Name of the norm.
        decoder: Name of the rows, which many checkpoints leave out: they are the word embeddings.
        bias: Name of the words' bias where it is not the decoder's.
        activation: Reads the function between the linear layer and the norm.
        epsilon: Reads the norm's epsilon.
    """

    dense: str
    norm: str
    decoder: str
    bias: str | None = None
    activation: Callable[[JsonObject], Activation]
    epsilon: Callable[[JsonObject], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The words' rows.

    Attributes:
        name: Of the tensor in the graph; that of the word embeddings where they are the same.
        vocab_size: V.
        width: H.
        weight: Gives [V, H] float32.
        bias: Gives [V] float32.
    """

    name: str
    vocab_size: int
    width: int
    weight: Callable[[], FloatArray]
    bias: Callable[[], FloatArray]


def require_masked_lm(head: MaskedLm | None, weights: Weights, architecture: str) -> MaskedLm:
    """Check that a model has such a head; no tensor is read.

    Raises:
        UnsupportedModelError: The family has none that we know, or the checkpoint lacks it.
    """
    if head is None:
        raise UnsupportedModelError(
            f"sparse vectors need a head that scores words, and {architecture} has none that can"
            " be exported; leave --sparse out"
        )
    if not weights.has(f"{head.dense}.weight"):
        raise UnsupportedModelError(
            f"sparse vectors need a head that scores words, and this checkpoint of {architecture}"
            f" has no weight {head.dense + '.weight'!r}; leave --sparse out, or export a masked"
            " language model"
        )
    return head


def write_transform(
    graph: Graph, config: JsonObject, weights: Weights, head: MaskedLm, tokens: Value, width: int
) -> Value:
    """Write the head up to the words: what each token's scores are the product of."""
    dense = read_linear(weights, head.dense, width, width)
    norm = read_norm(weights, head.norm, width, head.epsilon(config))
    return layer_norm(
        graph, activate(graph, linear(graph, tokens, dense), head.activation(config)), norm
    )


def read_decoder(weights: Weights, head: MaskedLm, *, vocab_size: int, width: int) -> Decoder:
    """Find the words' rows; those of the word embeddings are not stored a second time."""
    shape, stored = (vocab_size, width), f"{head.decoder}.weight"
    is_own = weights.has(stored) and not np.array_equal(
        weights.take(stored, shape), weights.take(_WORDS_TENSOR, shape)
    )
    own_bias = f"{head.decoder}.bias"
    bias = own_bias if head.bias is None or weights.has(own_bias) else head.bias
    return Decoder(
        name=head.decoder if is_own else _WORDS,
        vocab_size=vocab_size,
        width=width,
        weight=lambda: weights.take(stored if is_own else _WORDS_TENSOR, shape),
        bias=lambda: weights.take(bias, (vocab_size,)),
    )
