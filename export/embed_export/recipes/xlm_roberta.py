"""XLM-RoBERTa: RoBERTa with another vocabulary."""

from dataclasses import replace

from embed_export.recipes.roberta import RECIPE as ROBERTA

RECIPE = replace(
    ROBERTA,
    architectures=("XLMRobertaModel", "XLMRobertaForMaskedLM"),
    examples=("intfloat/multilingual-e5-large", "Snowflake/snowflake-arctic-embed-l-v2.0"),
    matryoshka={"snowflake-arctic-embed-l-v2.0": (256,)},
)
