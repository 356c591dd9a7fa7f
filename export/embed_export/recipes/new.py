"""mGTE: GTE as its own repositories publish it, under the model type `new`."""

from dataclasses import replace

from embed_export.recipes.gte import RECIPE as GTE

RECIPE = replace(
    GTE,
    # The last is vLLM's name for it.
    architectures=("NewModel", "NewForMaskedLM", "NewForTokenClassification", "GteNewModel"),
    examples=(
        "Alibaba-NLP/gte-multilingual-base",
        "Alibaba-NLP/gte-base-en-v1.5",
        "Alibaba-NLP/gte-large-en-v1.5",
    ),
    matryoshka={"gte-multilingual-base": 128},
)
