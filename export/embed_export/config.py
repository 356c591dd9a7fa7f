"""What `embed-export` is asked to do; the command's flags are these fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from embed_export.errors import ExportError
from embed_runtime.manifest import PoolingMode
from embed_runtime.types import Precision

Convert: TypeAlias = Literal["auto", "embed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """One export, with what the user wants different from what the checkpoint says.

    Attributes:
        model: Folder of a checkpoint, or a model id on the hub.
        output: Where the bundle goes; None for `engines/<model name>`.
        precision: What weights are stored in, and what engines compute in where they can.
        engines: Engine names; None for every engine that can be built here and passes its proof.
        revision: Branch, tag or commit on the hub.
        max_tokens: Longest input, special tokens included; None for the model's own limit.
        pooling: Pooling modes instead of the checkpoint's.
        sparse: Whether vectors are weights of the vocabulary's words, made by a masked language
            model's head (SPLADE), where the checkpoint does not say so itself.
        normalize: Whether vectors have unit length, instead of the checkpoint's own rule.
        task_adapter: The one of a model's adapters to merge into its weights; None keeps all of
            them in the graph.
        convert: "embed" to take an architecture without a recipe, through transformers' own code.
        hf_overrides: Values that replace those of config.json, nested objects merged.
    """

    model: str
    output: Path | None = None
    precision: Precision = "fp32"
    engines: tuple[str, ...] | None = None
    revision: str | None = None
    max_tokens: int | None = None
    pooling: tuple[PoolingMode, ...] | None = None
    sparse: bool = False
    normalize: bool | None = None
    task_adapter: str | None = None
    convert: Convert = "auto"
    hf_overrides: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ExportError(f"--max-length={self.max_tokens} must be 1 or more")
        if self.sparse and self.pooling is not None:
            raise ExportError("--sparse and --pooling both say how tokens are pooled; keep one")
        if self.sparse and self.normalize:
            raise ExportError("--sparse gives weights that are never normalized; leave that out")
