"""ERNIE: BERT with an optional task embedding; every text is of task 0."""

from dataclasses import replace

from embed_export.graph import Graph, Value
from embed_export.json_object import JsonObject
from embed_export.recipes.bert import RECIPE as BERT
from embed_export.recipes.bert import bert_layers, embeddings
from embed_export.weights import Weights
from embed_runtime.types import FloatArray


def ernie_backbone(graph: Graph, config: JsonObject, weights: Weights) -> Value:
    """Write ERNIE; without `use_task_id` it is BERT."""

    def task_row() -> FloatArray:
        shape = (config.require("task_type_vocab_size", int), config.require("hidden_size", int))
        row: FloatArray = weights.take("embeddings.task_type_embeddings.weight", shape)[0]
        return row

    also = task_row if config.find("use_task_id", bool, default=False) else None
    return bert_layers(graph, config, weights, embeddings(graph, config, weights, also=also))


RECIPE = replace(
    BERT,
    architectures=("ErnieModel", "ErnieForMaskedLM", "ErnieForPreTraining"),
    examples=("shibing624/text2vec-base-chinese-sentence",),
    backbone=ernie_backbone,
    matryoshka={},
    prefixes=("ernie.",),
    # Published with the table also where the model does not use it.
    unused=(*BERT.unused, r"embeddings\.task_type_embeddings\.weight"),
)
