"""RoBERTa: BERT whose positions start after the padding token's."""

from dataclasses import replace

from embed_export.errors import ExportError
from embed_export.json_object import JsonObject
from embed_export.masked_lm import MaskedLm
from embed_export.recipes import Recipe, Shape
from embed_export.recipes.bert import bert_backbone, bert_shape
from embed_runtime.manifest import Positions


def roberta_shape(config: JsonObject) -> Shape:
    """Read the sizes; the first pad_token_id + 1 rows of the position table are never text's."""
    shape = bert_shape(config)
    pad_token_id = config.require("pad_token_id", int)
    first = pad_token_id + 1
    if not 0 <= pad_token_id < shape.max_tokens - 1:
        raise ExportError(
            f"{config.source}: pad_token_id={pad_token_id} leaves no position of"
            f" max_position_embeddings={shape.max_tokens} for text"
        )
    return replace(
        shape,
        max_tokens=shape.max_tokens - first,
        positions=Positions(offset=first, skip_id=pad_token_id),
    )


RECIPE = Recipe(
    architectures=("RobertaModel", "RobertaForMaskedLM"),
    examples=(
        "sentence-transformers/all-roberta-large-v1",
        "sentence-transformers/all-distilroberta-v1",
    ),
    shape=roberta_shape,
    backbone=bert_backbone,
    longest="max_position_embeddings - pad_token_id - 1",
    prefixes=("roberta.",),
    masked_lm=MaskedLm(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        bias="lm_head.bias",
        # Whatever the layers have (transformers, modeling_roberta.py).
        activation=lambda _: "gelu",
        epsilon=lambda config: config.find("layer_norm_eps", float, 1e-12),
    ),
    unused=(r"pooler\..*", r"lm_head\..*", r"embeddings\.position_ids"),
)
