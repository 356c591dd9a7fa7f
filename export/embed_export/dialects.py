"""The graphs of a bundle: every dialect of one model, over one file of weights."""

from collections.abc import Mapping
from pathlib import Path

from embed_export.errors import ExportError
from embed_export.graph import OPSET, Graph, Value, WeightsFile
from embed_export.masked_lm import read_decoder, write_transform
from embed_export.pooler import write_outputs
from embed_export.source import Source
from embed_export.splade import write_weights
from embed_export.token_heads import write_token_outputs
from embed_export.weights import Weights, layer_norm_names, strip_prefix
from embed_runtime.manifest import Dialect
from embed_runtime.manifest import Graph as GraphEntry
from embed_runtime.types import FloatArray, Precision

_FOLDER = "graphs"
_WEIGHTS_NAME = f"{_FOLDER}/weights.bin"


def graph_name(dialect: Dialect) -> str:
    """Name a dialect's file in the bundle."""
    return f"{_FOLDER}/{dialect}.onnx"


def dialects_for(precision: Precision) -> tuple[Dialect, ...]:
    """Return the graphs a bundle of this precision has."""
    match precision:
        case "fp16":
            return ("padded", "packed", "packed-fp16")
        case "bf16":
            return ("padded", "packed", "packed-bf16")
        case "int8":
            return ("padded", "packed", "packed-int8")
        case "fp32":
            return ("padded", "packed")


def write_graphs(
    folder: Path, source: Source, channel_maxima: Mapping[str, FloatArray] | None = None
) -> tuple[GraphEntry, ...]:
    """Write every dialect; all of them share one file of weights.

    Args:
        folder: Where to, into a folder of their own.
        source: The model.
        channel_maxima: See `Graph`.

    Raises:
        ExportError: A weight is missing, has another shape, or is left over.
    """
    (folder / _FOLDER).mkdir()
    spec, recipe, checkpoint = source.spec, source.recipe, source.checkpoint
    weights = checkpoint.weights.renamed(strip_prefix(*recipe.prefixes)).renamed(layer_norm_names)
    entries: list[GraphEntry] = []
    with WeightsFile(folder / _WEIGHTS_NAME) as file:
        for dialect in dialects_for(source.config.precision):
            graph = Graph(
                dialect,
                storage=source.config.precision,
                weights=file,
                positions=spec.shape.positions,
                max_tokens=spec.max_tokens,
                channel_maxima=channel_maxima,
            )
            hidden_states = recipe.backbone(graph, checkpoint.config, weights)
            _write_outputs(graph, source, weights, hidden_states)
            name = graph_name(dialect)
            graph.save(folder / name, metadata=_metadata(source))
            entries.append(GraphEntry(dialect=dialect, files=(name, _WEIGHTS_NAME), opset=OPSET))
    left_over = [name for name in weights.unused() if not recipe.allows_unused(name)]
    if left_over:
        raise ExportError(
            f"the checkpoint has {len(left_over)} weights that {checkpoint.architecture} does not"
            f" use, the first is {left_over[0]!r}; config.json is of another kind of model"
        )
    return tuple(entries)


def _write_outputs(graph: Graph, source: Source, weights: Weights, hidden_states: Value) -> None:
    """End a graph with all that its bundle offers."""
    spec, width = source.spec, source.spec.shape.hidden_size
    write_token_outputs(graph, hidden_states, hidden_size=width, heads=spec.token_heads)
    if spec.splade is None:
        write_outputs(
            graph,
            hidden_states,
            hidden_size=width,
            pooling=spec.pooling,
            heads=spec.heads,
            normalize=spec.normalize,
        )
        return
    head, vocab_size = source.recipe.masked_lm, spec.shape.vocab_size
    assert head is not None
    states = write_transform(graph, source.checkpoint.config, weights, head, hidden_states, width)
    decoder = read_decoder(weights, head, vocab_size=vocab_size, width=width)
    vectors = write_weights(graph, states, decoder, spec.splade)
    for name in ("pooled", "embedding"):
        graph.output(name, vectors, ["B", vocab_size])


def _metadata(source: Source) -> dict[str, str]:
    """Return what the graph file says about itself, for tools that read nothing else."""
    return {
        "model": source.checkpoint.id,
        "revision": source.checkpoint.revision or "",
        "pooling": "+".join(source.spec.pooling.modes) or "splade",
        "normalize": str(source.spec.normalize).lower(),
        "dimensions": str(source.spec.dimensions.native),
        "max_tokens": str(source.spec.max_tokens),
    }
