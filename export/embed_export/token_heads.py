"""Heads on single tokens: a weight for sparse vectors, a vector for late interaction (ColBERT).

bge-m3 keeps them beside its checkpoint, each a linear layer in a file of its own; mGTE has the
first among its weights. What is done with them is FlagEmbedding's (1.3, `BGEM3FlagModel`): weights
are cut off below zero, and of a text's vectors the first token's is left out, the others scaled to
unit length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embed_export.errors import ExportError
from embed_export.graph import Graph, Value
from embed_export.layers import Linear, linear
from embed_export.weight_files import open_weight_file
from embed_export.weights import Weights
from embed_runtime.manifest import TokenHead

# vLLM's name for XLM-RoBERTa with both files; whoever says it wants them.
BGE_M3 = "BgeM3EmbeddingModel"
_WEIGHTS_STEM, _VECTORS_STEM = "sparse_linear", "colbert_linear"
_SUFFIXES = (".safetensors", ".pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHeads:
    """The heads of one model.

    Attributes:
        weights: To one value a token, its weight once negative ones are zero.
        vectors: To a vector a token.
    """

    weights: Linear | None = None
    vectors: Linear | None = None

    @property
    def spec(self) -> TokenHead | None:
        """What the manifest says about `vectors`."""
        if self.vectors is None:
            return None
        return TokenHead(dimensions=self.vectors.out_features, normalize=True, num_dropped=1)


def find_token_heads(
    folder: Path,
    weights: Weights,
    *,
    architecture: str,
    hidden_size: int,
    weighing_layer: str | None,
) -> TokenHeads:
    """Look for the heads of a checkpoint; no tensor is read yet.

    Args:
        folder: The checkpoint.
        weights: Its tensors.
        architecture: Its architecture.
        hidden_size: Width of its token vectors.
        weighing_layer: Name of the layer that is the weights' head where it gives one value.

    Raises:
        ExportError: One of bge-m3's two files is there without the other, or is none of them.
    """
    files = {stem: _find_file(folder, stem) for stem in (_WEIGHTS_STEM, _VECTORS_STEM)}
    missing = [stem for stem, path in files.items() if path is None]
    if len(missing) == 1 or (missing and architecture == BGE_M3):
        raise ExportError(
            f"{folder} has no {missing[0]}{_SUFFIXES[1]} or {missing[0]}{_SUFFIXES[0]}, one of the"
            " two heads of a bge-m3 model; fetch it"
        )
    if not missing:
        return TokenHeads(
            weights=_read_file(files, _WEIGHTS_STEM, hidden_size, out_features=1),
            vectors=_read_file(files, _VECTORS_STEM, hidden_size),
        )
    shape = None if weighing_layer is None else weights.shape(f"{weighing_layer}.weight")
    if shape is None or shape[0] != 1:
        return TokenHeads()
    return TokenHeads(weights=_read(weights, f"{weighing_layer}.", "token_weights", 1, hidden_size))


def write_token_outputs(
    graph: Graph, hidden_states: Value, *, hidden_size: int, heads: TokenHeads
) -> None:
    """Write `token_embeddings` and, where there is a head for it, `token_weights`."""
    axes = ["T"] if graph.packed else ["B", "S"]
    vectors, width = hidden_states, hidden_size
    if heads.vectors is not None:
        vectors, width = linear(graph, hidden_states, heads.vectors), heads.vectors.out_features
    graph.output("token_embeddings", graph.widen(vectors), [*axes, width])
    if heads.weights is not None:
        weights = _weigh(graph, graph.widen(hidden_states), heads.weights)
        graph.output("token_weights", weights, [*axes, 1])


def _weigh(graph: Graph, tokens: Value, head: Linear) -> Value:
    """Apply the weights' head, in float32: it is one column, and near zero every bit counts."""
    column = graph.stored(f"{head.name}.weight", "fp32", lambda: head.weight().T)
    product = graph.op("MatMul", [tokens, column])
    if head.bias is not None:
        bias = graph.stored(f"{head.name}.bias", "fp32", head.bias)
        product = graph.op("Add", [product, bias])
    return graph.op("Relu", [product])


def _find_file(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def _read_file(
    files: Mapping[str, Path | None],
    stem: str,
    hidden_size: int,
    *,
    out_features: int | None = None,
) -> Linear:
    path = files[stem]
    assert path is not None
    weights = open_weight_file(path)
    if unknown := sorted(set(weights.names()) - {"weight", "bias"}):
        raise ExportError(
            f"{path.name} has {unknown[0]!r}, but a head has a weight and a bias and nothing else"
        )
    shape = weights.shape("weight")
    if shape is None or len(shape) != 2:
        raise ExportError(f"{path.name} has no matrix 'weight'; it is another kind of file")
    return _read(weights, "", stem, out_features or shape[0], hidden_size)


def _read(weights: Weights, prefix: str, name: str, out_features: int, in_features: int) -> Linear:
    has_bias = weights.has(f"{prefix}bias")
    return Linear(
        name=name,
        out_features=out_features,
        weight=lambda: weights.take(f"{prefix}weight", (out_features, in_features)),
        bias=(lambda: weights.take(f"{prefix}bias", (out_features,))) if has_bias else None,
    )
