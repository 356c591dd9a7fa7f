"""SPLADE: how much each word of the vocabulary weighs in a text.

A word's score at each token is cut off below zero, its logarithm taken, and pooled over the text
(Formal et al. 2021, arXiv:2109.10086; sparse_encoder/modules/splade_pooling.py of
Sentence-Transformers 6.2). The scores of all words at all tokens would be B x S x V numbers, 2 GB
for 32 texts of 512 tokens; so the vocabulary comes in chunks, each pooled before the next.
"""

from embed_export.graph import Graph, Value
from embed_export.layers import embedded_rows
from embed_export.masked_lm import Decoder
from embed_export.modules import SpladePooling

# Words in a chunk: 1,024 tokens have 8 MB of scores then.
CHUNK_WORDS = 2048


def write_weights(graph: Graph, tokens: Value, decoder: Decoder, splade: SpladePooling) -> Value:
    """Write the pooled weights, [B, V] float32.

    Args:
        graph: Where to.
        tokens: A token tensor, the head's last state before the words.
        decoder: The words' rows.
        splade: How scores become weights.
    """
    flat = tokens
    if not graph.packed:
        flat = graph.op("Reshape", [tokens, graph.integers([-1, decoder.width])])
    slots = _slots(graph)
    chunks: list[Value] = []
    for start in range(0, decoder.vocab_size, CHUNK_WORDS):
        stop = min(start + CHUNK_WORDS, decoder.vocab_size)
        scores = graph.op("Gather", [_scores(graph, flat, decoder, start, stop), slots])
        chunks.append(_pool(graph, graph.widen(scores), splade))
    pooled = graph.op("Concat", chunks, {"axis": 1}) if len(chunks) > 1 else chunks[0]
    # A logarithm of the largest score is the largest logarithm, and B x V are fewer to take.
    return _weigh(graph, pooled, splade) if splade.strategy == "max" else pooled


def _scores(graph: Graph, tokens: Value, decoder: Decoder, start: int, stop: int) -> Value:
    """Score some words at each token: [T, words] in the compute precision."""
    rows = embedded_rows(graph, decoder.name, decoder.weight, start, stop)
    bias = graph.vector("decoder.bias", decoder.bias)
    return graph.op("Gemm", [tokens, rows, graph.slice_rows(bias, start, stop)], {"transB": 1})


def _pool(graph: Graph, scores: Value, splade: SpladePooling) -> Value:
    """Pool [B, S, words] to [B, words]."""
    if splade.strategy == "max":
        return graph.op("ReduceMax", [scores, graph.integers([1])], {"keepdims": 0})
    # The product with the mask is the sum over a row's own tokens.
    mask = graph.op("Unsqueeze", [graph.mask, graph.integers([1])])
    sums = graph.op("MatMul", [mask, _weigh(graph, scores, splade)])
    return graph.op("Squeeze", [sums, graph.integers([1])])


def _weigh(graph: Graph, scores: Value, splade: SpladePooling) -> Value:
    weights = graph.op("Relu", [scores])
    for _ in range(2 if splade.double_log else 1):
        weights = graph.op("Log", [graph.op("Add", [weights, graph.number(1.0, "fp32")])])
    return weights


def _slots(graph: Graph) -> Value:
    """Return [B, S]: which token stands in each slot; padding repeats its row's first token.

    So padding changes no maximum, and needs no mask.
    """
    if graph.packed:
        index = graph.pad_index
    else:
        shape = graph.op("Shape", [graph.mask])
        count = graph.op("ReduceProd", [shape], {"keepdims": 0})
        places = graph.op("Range", [graph.integers(0), count, graph.integers(1)])
        index = graph.op("Reshape", [places, shape])
    first = graph.op("Gather", [index, graph.integers([0])], {"axis": 1})
    is_token = graph.op("Greater", [graph.mask, graph.number(0.5, "fp32")])
    return graph.op("Where", [is_token, index, first])
