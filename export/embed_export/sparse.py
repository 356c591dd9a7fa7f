"""Whether a model gives sparse vectors, and what the manifest says about them."""

from embed_export.checkpoint import Checkpoint
from embed_export.config import ExportConfig
from embed_export.errors import ExportError
from embed_export.masked_lm import require_masked_lm
from embed_export.modules import SpladePooling
from embed_export.recipes import Recipe
from embed_export.token_heads import TokenHeads
from embed_export.tokenizer import ResolvedTokenizer
from embed_export.weights import strip_prefix
from embed_runtime.manifest import Sparse

# vLLM's name for BERT with this head; no published config has it, whoever says it wants it.
_ARCHITECTURE = "BertSpladeSparseEmbeddingModel"
# What vLLM computes, and what SPLADE's authors published: the default of the module, too.
_DEFAULT = SpladePooling(strategy="max", double_log=False)


def find_splade(
    config: ExportConfig, checkpoint: Checkpoint, recipe: Recipe, heads: TokenHeads
) -> SpladePooling | None:
    """Decide whether the vector is weights of words: modules.json says so, or the user does.

    Raises:
        UnsupportedModelError: The model has no head that scores words.
        ExportError: The user or the files ask for a vector of another kind as well.
    """
    modules = checkpoint.sentence_transformers.modules
    splade = modules.splade
    is_asked = config.sparse or checkpoint.architecture == _ARCHITECTURE
    # A head on single tokens gives sparse vectors beside the others, and needs no asking.
    if splade is None and is_asked and heads.weights is None:
        splade = _DEFAULT
    if splade is None:
        return None
    weights = checkpoint.weights.renamed(strip_prefix(*recipe.prefixes))
    require_masked_lm(recipe.masked_lm, weights, checkpoint.architecture)
    if modules.heads:
        raise ExportError(
            "modules.json has Dense modules, which do not fit sparse vectors; leave --sparse out"
        )
    if config.pooling is not None or config.normalize:
        raise ExportError(
            "the vector is weights of words (SPLADE), which are neither pooled so nor normalized;"
            " leave --pooling and --pooler-config out"
        )
    return splade


def find_sparse(
    splade: SpladePooling | None, heads: TokenHeads, tokenizer: ResolvedTokenizer, vocab_size: int
) -> Sparse | None:
    """Say where the weights of words are; None where there are none."""
    if splade is not None:
        return Sparse(output="embedding", pooling=splade.strategy, double_log=splade.double_log)
    if heads.weights is None:
        return None
    skipped = [token_id for token_id in tokenizer.unweighted_ids if token_id < vocab_size]
    return Sparse(output="token_weights", skipped_ids=tuple(skipped))
