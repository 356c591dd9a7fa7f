"""Models of transformers' own, loaded from a checkpoint without running any code of it."""

# transformers leaves the types of what it loads open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from embed_export.errors import ExportError
from embed_export.quiet import quiet_transformers


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A backbone, ready to run.

    Attributes:
        model: transformers' module.
        missing: Its weights that the checkpoint lacks; they hold random numbers.
        unexpected: The checkpoint's weights that it lacks.
    """

    model: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def is_native(model_type: str) -> bool:
    """Tell whether transformers itself computes a model type."""
    return (
        model_type in transformers.CONFIG_MAPPING
        and transformers.CONFIG_MAPPING[model_type] in transformers.MODEL_MAPPING
    )


def native_config(settings: Mapping[str, object]) -> Any:
    """Make the config object of a native model type, with every default filled in.

    Raises:
        ExportError: transformers refuses the settings.
    """
    try:
        with quiet_transformers():
            # A copy to the bottom: transformers completes nested objects in place.
            copied = deepcopy(dict(settings))
            return transformers.CONFIG_MAPPING[str(copied["model_type"])].from_dict(copied)
    except Exception as error:  # a damaged file can make it raise anything
        raise ExportError(f"transformers refuses config.json: {one_line(error)}") from error


def load_native(
    settings: Mapping[str, object],
    folder: Path,
    *,
    dtype: torch.dtype,
    tensors: Mapping[str, torch.Tensor] | None = None,
    with_words: bool = False,
) -> Loaded:
    """Load a backbone.

    Args:
        settings: Its config.
        folder: The checkpoint.
        dtype: What to compute in.
        tensors: The weights, where transformers cannot read the folder's.
        with_words: Whether to load it as a masked language model, which scores words.

    Raises:
        ExportError: transformers cannot load it, or a weight has another shape.
    """
    config = native_config(settings)
    try:
        with quiet_transformers():
            # The automatic class would ask for a folder even where tensors are given.
            classes = (
                transformers.MODEL_FOR_MASKED_LM_MAPPING
                if with_words
                else transformers.MODEL_MAPPING
            )
            model_class: Any = classes[type(config)]
            model, report = model_class.from_pretrained(
                folder if tensors is None else None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                local_files_only=True,
                # It would raise an error that names no weight.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            model.eval()
    except Exception as error:  # a damaged file can make it raise anything
        raise ExportError(
            f"transformers cannot load the original model: {one_line(error)}"
        ) from error
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise ExportError(
            f"weight {name!r} has shape {list(found)}, but config.json asks for {list(wanted)}"
        )
    return Loaded(
        model=model,
        missing=tuple(sorted(cast("set[str]", report["missing_keys"]))),
        unexpected=tuple(sorted(cast("set[str]", report["unexpected_keys"]))),
    )


def one_line(error: BaseException) -> str:
    """Say in one line what a library's error says."""
    return " ".join(str(error).split()) or type(error).__name__
