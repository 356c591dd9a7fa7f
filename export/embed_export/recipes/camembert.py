"""CamemBERT: RoBERTa for French."""

from dataclasses import replace

from embed_export.recipes.roberta import RECIPE as ROBERTA

RECIPE = replace(
    ROBERTA,
    architectures=("CamembertModel", "CamembertForMaskedLM"),
    examples=("dangvantuan/sentence-camembert-base",),
    prefixes=("roberta.", "camembert."),
)
