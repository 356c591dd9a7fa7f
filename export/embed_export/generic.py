"""The recipe for an architecture nobody wrote one for: transformers' own code, traced."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import cast

from embed_export.checkpoint import Checkpoint
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.native import is_native, native_config
from embed_export.recipes import Recipe, Shape
from embed_export.traced_graph import write_traced
from embed_export.tracing import Traced, trace
from embed_export.weights import Weights
from embed_runtime.manifest import Positions
from embed_runtime.types import Precision

# Endings of the classes whose backbone maps ids and a mask to token vectors.
_ENDINGS = ("Model", "ForCausalLM", "ForMaskedLM")


def generic_recipe(checkpoint: Checkpoint) -> Recipe:
    """Make the recipe that traces a checkpoint.

    Raises:
        UnsupportedModelError: transformers does not have it, or it is no text model.
    """
    model_type, architecture = checkpoint.model_type, checkpoint.architecture
    if not is_native(model_type):
        raise UnsupportedModelError(
            f"transformers {version('transformers')} has no model type {model_type!r}; its code"
            " would have to come with the checkpoint, and such code is never run"
        )
    if not architecture.endswith(_ENDINGS):
        raise UnsupportedModelError(
            f"--convert embed takes architectures named {', '.join(f'*{one}' for one in _ENDINGS)},"
            f" not {architecture!r}"
        )
    return Recipe(
        architectures=(architecture,),
        examples=(),
        model_type=model_type,
        shape=_shape,
        backbone=_Tracer(checkpoint.model_folder).write,
        pooling="lasttoken",
        precisions=("fp32", "fp16", "bf16"),
        precision_limit="a traced model has no int8 form",
        native_config=_native_settings,
    )


class _Tracer:
    """Writes the layers of one checkpoint; dialects of one precision share a trace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._precision: Precision | None = None
        self._traced: Traced | None = None

    def write(self, graph: Graph, config: JsonObject, weights: Weights) -> Value:
        if self._traced is None or graph.compute != self._precision:
            # One at a time: the one before holds weights.
            self._traced = None
            self._traced = trace(
                _native_settings(config),
                self._folder,
                precision=graph.compute,
                max_tokens=graph.max_tokens,
            )
            self._precision = graph.compute
        states = write_traced(graph, self._traced, _shape(config).hidden_size)
        self._traced.release()
        # transformers read them, and says itself which are missing or left over.
        weights.take_all()
        return states


def _native_settings(config: JsonObject) -> Mapping[str, object]:
    """Say in transformers' words what published configs say in their own."""
    settings = dict(config)
    if config.find("use_bidirectional_attention", bool):
        settings.setdefault("is_causal", False)
    if config.find("attn_logit_softcapping", float):
        # The other implementation has no soft cap.
        settings["attn_implementation"] = "eager"
    return settings


def _shape(config: JsonObject) -> Shape:
    """Read the sizes as transformers understands them, whatever a family calls them.

    Raises:
        UnsupportedModelError: It is no model of texts alone.
        ExportError: A size is missing.
    """
    native = native_config(_native_settings(config))
    if native.is_encoder_decoder or native.get_text_config() is not native:
        raise UnsupportedModelError(
            f"model type {config['model_type']!r} is more than one text model, which"
            " --convert embed cannot take apart"
        )

    def size(name: str) -> int:
        try:
            found = getattr(native, name, None)
        except NotImplementedError:  # transformers' word for a length without a limit
            found = None
        if type(found) is not int or found < 1:
            raise ExportError(
                f"{config.source} has no {name!r}; add it: --hf-overrides '{{\"{name}\": ...}}'"
            )
        return found

    return Shape(
        hidden_size=size("hidden_size"),
        num_layers=size("num_hidden_layers"),
        vocab_size=size("vocab_size"),
        max_tokens=_max_tokens(
            getattr(native, "rope_parameters", None), size("max_position_embeddings")
        ),
        positions=Positions(),
    )


def _max_tokens(rope_parameters: object, max_tokens: int) -> int:
    """Stop LongRoPE at the length it was trained with: see `rope_config._longrope`."""
    if not isinstance(rope_parameters, Mapping):
        return max_tokens
    settings = cast("Mapping[str, object]", rope_parameters)
    if settings.get("rope_type") == "longrope":
        trained = settings.get("original_max_position_embeddings")
        return min(trained, max_tokens) if isinstance(trained, int) else max_tokens
    # Some families have parameters of their own for each kind of layer.
    return min(_max_tokens(one, max_tokens) for one in [None, *settings.values()])
