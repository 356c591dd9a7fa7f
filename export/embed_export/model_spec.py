"""What a bundle will compute: the checkpoint's word, the user's where given, defaults last."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from embed_export.checkpoint import Checkpoint
from embed_export.config import ExportConfig
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.modules import DenseHead, SpladePooling
from embed_export.recipes import Recipe, Shape
from embed_export.sparse import find_sparse, find_splade
from embed_export.token_heads import TokenHeads, find_token_heads
from embed_export.tokenizer import ResolvedTokenizer
from embed_runtime.manifest import Dimensions, Pooling, Similarity, Sparse


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, settled: nothing after this looks at the checkpoint's settings again.

    Attributes:
        shape: Sizes of the backbone.
        pooling: How token vectors become one; without a mode where `splade` says it.
        splade: How the scores of words become the vector; None for a vector of token vectors.
        token_heads: Heads on single tokens.
        sparse: Where the weights of words are, if the model gives any.
        heads: Dense modules after pooling.
        normalize: Whether vectors have unit length.
        dimensions: Sizes a vector may have.
        max_tokens: Longest input, special tokens included.
        prompts: Texts to put in front, by name.
        default_prompt: Name of the one used when the caller names none.
        adapters: Tasks whose adapters are in the graph, in the order of their ids.
        similarity: How vectors are compared.
    """

    shape: Shape
    pooling: Pooling
    splade: SpladePooling | None
    token_heads: TokenHeads
    sparse: Sparse | None
    heads: tuple[DenseHead, ...] = field(repr=False)
    normalize: bool
    dimensions: Dimensions
    max_tokens: int
    prompts: Mapping[str, str]
    default_prompt: str | None
    adapters: tuple[str, ...]
    similarity: Similarity

    def summary(self) -> str:
        """Say in a line what was decided, for a person."""
        modes = "+".join(mode.removesuffix("token") for mode in self.pooling.modes)
        default = f" (default: {self.default_prompt})" if self.default_prompt else ""
        words = {
            "weights of words (SPLADE)": self.splade is not None,
            f"{modes} pooling": self.splade is None,
            "prompts not pooled": not self.pooling.include_prompt,
            "normalized" if self.normalize else "not normalized": self.splade is None,
            f"{self.dimensions.native:,} dimensions": True,
            f"at most {self.max_tokens:,} tokens": True,
            "sparse weights beside": self.token_heads.weights is not None,
            "ColBERT vectors beside": self.token_heads.vectors is not None,
            f"adapters {', '.join(self.adapters)}": bool(self.adapters),
            f"prompts {', '.join(self.prompts)}{default}": bool(self.prompts),
        }
        return "; ".join(word for word, holds in words.items() if holds)


def settle(
    config: ExportConfig,
    checkpoint: Checkpoint,
    recipe: Recipe,
    tokenizer: ResolvedTokenizer,
    *,
    shape: Shape,
) -> ModelSpec:
    """Decide every setting.

    Without Sentence-Transformers files the architecture's pooling is used and vectors are
    normalized, as vLLM does.

    Args:
        config: What the user asked for.
        checkpoint: The files.
        recipe: What is special about the architecture.
        tokenizer: Resolved.
        shape: What the recipe read of config.json.

    Raises:
        UnsupportedModelError: The files ask for something no graph computes.
        ExportError: They contradict each other or the user.
    """
    files = checkpoint.sentence_transformers
    modules = files.modules
    if modules.token_dimensions not in (None, shape.hidden_size):
        raise ExportError(
            f"the pooling module expects tokens of {modules.token_dimensions} values, config.json"
            f" says hidden_size={shape.hidden_size}; one of the two files is another model's"
        )
    if tokenizer.num_words > shape.vocab_size:
        raise ExportError(
            f"the tokenizer has {tokenizer.num_words} words, the model only {shape.vocab_size};"
            " one of the two is another model's"
        )
    heads = find_token_heads(
        checkpoint.model_folder,
        checkpoint.weights,
        architecture=checkpoint.architecture,
        hidden_size=shape.hidden_size,
        weighing_layer=recipe.weighing_layer,
    )
    splade = find_splade(config, checkpoint, recipe, heads)
    pooling = _pooling(config, checkpoint, recipe) if splade is None else Pooling(modes=())
    prompts = checkpoint.prompts or recipe.prompts
    default_prompt = files.default_prompt if checkpoint.prompts else recipe.default_prompt
    task = config.task_adapter
    adapters: tuple[str, ...] = ()
    if recipe.find_adapters is not None and task is None:
        adapters = recipe.find_adapters(checkpoint.config)
        prompts = {**dict.fromkeys(adapters, ""), **prompts}
    if task is not None and task in prompts:
        # The weights are for this task now: no other prompt fits them, and this one always does.
        prompts, default_prompt = {task: prompts[task]}, task
    return ModelSpec(
        shape=shape,
        pooling=pooling,
        splade=splade,
        token_heads=heads,
        sparse=find_sparse(splade, heads, tokenizer, shape.vocab_size),
        heads=modules.heads,
        normalize=splade is None and _normalize(config, checkpoint),
        dimensions=(
            _dimensions(checkpoint, recipe, shape, pooling)
            if splade is None
            else Dimensions(native=shape.vocab_size)
        ),
        max_tokens=_max_tokens(config, files.max_tokens, shape, tokenizer),
        prompts=prompts,
        default_prompt=default_prompt,
        adapters=adapters,
        similarity=files.similarity or ("cosine" if splade is None else "dot"),
    )


def _pooling(config: ExportConfig, checkpoint: Checkpoint, recipe: Recipe) -> Pooling:
    pooling = checkpoint.sentence_transformers.modules.pooling
    if pooling is None:
        find = recipe.find_pooling
        default = find(checkpoint.config) if find else recipe.pooling
        pooling = Pooling(modes=config.pooling or (default,))
    if not recipe.include_prompt:
        pooling = msgspec.structs.replace(
            pooling, include_prompt=False, prompt_marks=recipe.prompt_marks
        )
    return pooling


def _normalize(config: ExportConfig, checkpoint: Checkpoint) -> bool:
    if config.normalize is not None:
        return config.normalize
    stated = checkpoint.sentence_transformers.modules.normalize
    return True if stated is None else stated


def _dimensions(
    checkpoint: Checkpoint, recipe: Recipe, shape: Shape, pooling: Pooling
) -> Dimensions:
    heads = checkpoint.sentence_transformers.modules.heads
    native = shape.hidden_size * len(pooling.modes)
    for head in heads:
        if head.spec.in_features != native:
            raise ExportError(
                f"a Dense module reads {head.spec.in_features} values, but {native} come before it;"
                " leave --pooling out, or remove the module"
            )
        native = head.spec.out_features
    truncated = checkpoint.sentence_transformers.truncate_dimensions
    if truncated is not None and truncated != native:
        raise UnsupportedModelError(
            f"config_sentence_transformers.json: truncate_dim={truncated} cuts every vector of"
            f' {native} values; set it to null and ask for "dimensions" in requests instead'
        )
    matryoshka, smallest = checkpoint.matryoshka, 1
    if matryoshka is None:
        matryoshka, smallest = _published_sizes(checkpoint, recipe, native)
    elif matryoshka and max(matryoshka) > native:
        raise ExportError(
            f"config.json: matryoshka_dimensions has {max(matryoshka)}, but vectors have {native}"
            " values"
        )
    return Dimensions(
        native=native,
        matryoshka=matryoshka,
        smallest=smallest,
        center=recipe.centers_cuts and matryoshka is not None,
    )


def _published_sizes(
    checkpoint: Checkpoint, recipe: Recipe, native: int
) -> tuple[tuple[int, ...] | None, int]:
    """Look up the sizes of a published model, as `matryoshka` and `smallest` of `Dimensions`."""
    sizes = recipe.matryoshka.get(checkpoint.id.rpartition("/")[2])
    if isinstance(sizes, int):
        return ((), sizes) if sizes < native else (None, 1)
    return tuple(size for size in sizes or () if size < native) or None, 1


def _max_tokens(
    config: ExportConfig, from_files: int | None, shape: Shape, tokenizer: ResolvedTokenizer
) -> int:
    if config.max_tokens is not None:
        if config.max_tokens > shape.max_tokens:
            raise ExportError(
                f"--max-length={config.max_tokens} is more than the {shape.max_tokens} positions"
                " the model has"
            )
        return config.max_tokens
    stated = from_files if from_files is not None else tokenizer.max_tokens
    return shape.max_tokens if stated is None else min(stated, shape.max_tokens)
