"""XLM-RoBERTa: RoBERTa with another vocabulary."""

from dataclasses import replace

from embed_export.recipes.roberta import RECIPE as ROBERTA
from embed_export.token_heads import BGE_M3

RECIPE = replace(
    ROBERTA,
    # The last is vLLM's name for bge-m3 with all of its heads.
    architectures=("XLMRobertaModel", "XLMRobertaForMaskedLM", BGE_M3),
    examples=(
        "BAAI/bge-m3",
        "intfloat/multilingual-e5-large",
        "Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    matryoshka={"snowflake-arctic-embed-l-v2.0": (256,)},
)
