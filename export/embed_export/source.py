"""A checkpoint, read and settled: what every later step of an export works from."""

from dataclasses import dataclass

from embed_export.checkpoint import Checkpoint, open_checkpoint
from embed_export.config import Convert, ExportConfig
from embed_export.errors import UnsupportedModelError
from embed_export.model_spec import ModelSpec, settle
from embed_export.recipes import TASK_ADAPTER, Recipe, find_recipe
from embed_export.tokenizer import ResolvedTokenizer, prove_tokenizer, resolve_tokenizer
from embed_runtime.manifest import Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is exported.

    Attributes:
        config: What the user asked for.
        checkpoint: The files.
        recipe: What is special about the architecture.
        tokenizer: Baked, and proven equal to the checkpoint's own.
        spec: Every setting, decided.
    """

    config: ExportConfig
    checkpoint: Checkpoint
    recipe: Recipe
    tokenizer: ResolvedTokenizer
    spec: ModelSpec


def read_source(config: ExportConfig) -> Source:
    """Read everything but the tensors.

    Raises:
        UnsupportedModelError: Nobody wrote a recipe, or the files ask for something we cannot do.
        ExportError: The checkpoint is missing, damaged, or contradicts itself or the user.
    """
    overrides = dict(config.hf_overrides)
    if config.task_adapter is not None:
        overrides[TASK_ADAPTER] = config.task_adapter
    checkpoint = open_checkpoint(
        config.model,
        revision=config.revision,
        hf_overrides=overrides,
        pooling=Pooling(modes=config.pooling) if config.pooling else None,
    )
    recipe = _choose_recipe(checkpoint, config.convert)
    checkpoint.sentence_transformers.modules.check_backbone(recipe.custom_modules)
    if config.task_adapter is not None and recipe.find_adapters is None:
        raise UnsupportedModelError(
            f"--task-adapter={config.task_adapter}: {checkpoint.architecture} has no adapters;"
            " leave it out"
        )
    if config.precision not in recipe.precisions:
        raise UnsupportedModelError(
            f"{checkpoint.architecture} cannot be exported in {config.precision}:"
            f" {recipe.precision_limit}; use one of --{', --'.join(recipe.precisions)}"
        )
    # Ahead of the tokenizer's library, which stumbles over a wrong config.json in its own words.
    shape = recipe.shape(checkpoint.config)
    tokenizer = resolve_tokenizer(checkpoint)
    prove_tokenizer(tokenizer, checkpoint)
    return Source(
        config=config,
        checkpoint=checkpoint,
        recipe=recipe,
        tokenizer=tokenizer,
        spec=settle(config, checkpoint, recipe, tokenizer, shape=shape),
    )


def _choose_recipe(checkpoint: Checkpoint, convert: Convert) -> Recipe:
    """Find the recipe; where there is none, trace transformers' code if the user wants that."""
    try:
        return find_recipe(checkpoint.config, checkpoint.architecture, any_head=convert == "embed")
    except UnsupportedModelError as error:
        # Imported late, as the original is: most exports never trace.
        from embed_export.generic import generic_recipe
        from embed_export.native import is_native

        if convert == "embed":
            return generic_recipe(checkpoint)
        if not is_native(checkpoint.model_type):
            raise
        raise UnsupportedModelError(
            f"{error}; --convert embed exports it through transformers' own code"
        ) from error
