"""transformers' own code, traced into ONNX operators: for architectures nobody wrote a recipe for.

torch.export follows the module with symbolic sizes, so nothing about the example survives in the
graph; code that looks at values, or at sizes in a way that holds for some of them only, raises.
"""

# torch and transformers leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import logging
import re
import traceback
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import rewrite

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.experts import compute_every_expert
from embed_export.graph import OPSET
from embed_export.native import Loaded, load_native
from embed_export.quiet import quiet_transformers
from embed_runtime.types import Precision

# Weights an embedding never needs: language and classification heads beside the backbone.
_HEADS = re.compile(r"(lm_head|score|classifier|cls|embed_out|output_projection|v_head)(\..*)?")
# Constants that older releases of transformers saved along.
_BUFFERS = re.compile(r".*(\.inv_freq|\.masked_bias|\.attn\.bias|position_ids)")
_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# What torch adds to a reason for those who work on the tracer.
_HINTS = re.compile(r"\s+\((?:unhinted|Size-like)")
# Simplifying twice reaches what the first pass makes possible; a third finds nothing more.
_NUM_PASSES = 2
_PREFIX = "model."
_EXAMPLE_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A model as a graph: `input_ids` and `attention_mask` [B, S] int64 to [B, S, H] states.

    Attributes:
        graph: The operators; its initializers are constants and weights.
        weights: Those with a name of their own in the model, whatever it computes in.
    """

    graph: ir.Graph
    weights: frozenset[ir.Value]

    def holds(self, value: ir.Value) -> bool:
        """Tell whether a value is a weight."""
        return value in self.weights

    def release(self) -> None:
        """Let go of what weights hold; the graph still knows their names, types and shapes."""
        for weight in self.weights:
            weight.const_value = None


def trace(
    settings: Mapping[str, object], folder: Path, *, precision: Precision, max_tokens: int
) -> Traced:
    """Load a model and trace it.

    Args:
        settings: Its config, as `load_native` takes it.
        folder: The checkpoint.
        precision: What it computes in.
        max_tokens: Longest row.

    Raises:
        UnsupportedModelError: Its code cannot be traced.
        ExportError: It cannot be loaded, or weights are missing or left over.
    """
    loaded = load_native(settings, folder, dtype=_DTYPES[precision])
    _check_weights(loaded)
    model = loaded.model
    if settings.get("is_causal") is False:
        _check_looks_ahead(model)
    compute_every_expert(model)
    with _quiet():
        try:
            program = _export(model, max_tokens)
        except Exception as error:  # what a model's code may run into, nobody can list
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot be traced: {_first_reason(error)}"
            ) from error
        _simplify(program, {f"{_PREFIX}{name}" for name, _ in model.named_parameters()})
    named = [one for name, one in program.graph.initializers.items() if name.startswith(_PREFIX)]
    return Traced(
        graph=program.graph,
        weights=frozenset(
            one for one in named if one.dtype is not None and one.dtype.is_floating_point()
        ),
    )


class _Backbone(torch.nn.Module):
    """What is traced: rows of ids in, token vectors out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        # Its name is `_PREFIX` in the graph.
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        outputs: Any = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        )
        states: torch.Tensor = outputs.last_hidden_state
        return states


def _check_weights(loaded: Loaded) -> None:
    if loaded.missing:
        raise ExportError(
            f"weight {loaded.missing[0]!r} of {type(loaded.model).__name__} is missing from the"
            " checkpoint; config.json is of another kind of model"
        )
    left_over = [
        name
        for name in loaded.unexpected
        if not _HEADS.fullmatch(name) and not _BUFFERS.fullmatch(name)
    ]
    if left_over:
        raise ExportError(
            f"the checkpoint has {len(left_over)} weights that {type(loaded.model).__name__} does"
            f" not use, the first is {left_over[0]!r}; config.json is of another kind of model"
        )
    for name, weight in loaded.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ExportError(f"weight {name!r} holds NaN or infinity; the file is damaged")


def _check_looks_ahead(model: Any) -> None:
    """Refuse a family that does not read `is_causal`: its vectors would be a causal model's."""
    input_ids = torch.ones((2, _EXAMPLE_TOKENS), dtype=torch.int64)
    input_ids[1, -1] = 2
    with torch.no_grad(), quiet_transformers():
        states = model(input_ids=input_ids, use_cache=False).last_hidden_state
    if torch.equal(states[0, 0], states[1, 0]):
        raise UnsupportedModelError(
            f"config.json: is_causal is false, but transformers' {type(model).__name__} has causal"
            " attention only; leave it out if that is what the model was trained with"
        )


def _export(model: torch.nn.Module, max_tokens: int) -> ir.Model:
    num_tokens = _EXAMPLE_TOKENS
    input_ids = torch.ones((2, num_tokens), dtype=torch.int64)
    attention_mask = torch.ones_like(input_ids)
    # With padding: masks are part of the graph then, whatever the model does with full ones.
    attention_mask[1, num_tokens // 2 :] = 0
    axes = {
        0: torch.export.Dim("num_rows", min=1),
        1: torch.export.Dim("num_tokens", min=1, max=max(max_tokens, num_tokens)),
    }
    with torch.no_grad():
        exported = torch.export.export(
            _Backbone(model),
            (),
            {"input_ids": input_ids, "attention_mask": attention_mask},
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            strict=False,
        )
        program: Any = torch.onnx.export(
            exported, (), dynamo=True, opset_version=OPSET, optimize=False, verbose=False
        )
    exported_model: ir.Model = program.model
    return exported_model


def _simplify(model: ir.Model, parameters: set[str]) -> None:
    """Compute constants; parameters stay as the checkpoint has them, under their names."""
    kept = {value for name, value in model.graph.initializers.items() if name in parameters}

    def should_fold(node: ir.Node) -> bool | None:
        return False if kept.intersection(node.inputs) else None

    for _ in range(_NUM_PASSES):
        fold_constants_ir(model, should_fold=should_fold)
        rewrite(model)
    for one in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.CommonSubexpressionEliminationPass(),
    ):
        one(model)


def _first_reason(error: Exception) -> str:
    """Name what stopped the tracer and the line of transformers that it was at."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Constraints violated"):
        # What follows are hints at torch's own flags; this is what they come to.
        return "its code is for a fixed number of tokens, as loops over them are"
    reason = _HINTS.split(lines[0])[0].strip()
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "transformers" in Path(frame.filename).parts
    ]
    if not frames:
        return reason
    return f"{reason}, at {Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].name}"


@contextmanager
def _quiet() -> Generator[None]:
    """Hold back what the tracer and the model's code log, warn and print."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
