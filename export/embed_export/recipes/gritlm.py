"""GritLM in embedding mode: Mistral that looks both ways, pooled without the prompt.

A prompt ends in the line `<|embed|>`; with an instruction, the lines `<|user|>` and the instruction
stand before it. These marks are ordinary text to its tokenizer. GritLM's own repository says
MistralForCausalLM: --hf-overrides can tell.
"""

from dataclasses import replace

from embed_export.decoder_config import both_ways, decoder_recipe, read_decoder
from embed_export.json_object import JsonObject
from embed_runtime.manifest import PromptMarks


def _embedding_mode(config: JsonObject) -> JsonObject:
    """Drop the window, which is for writing text."""
    return JsonObject({**both_ways(config), "sliding_window": None}, source=config.source)


RECIPE = replace(
    decoder_recipe(
        read_decoder,
        architectures=("GritLM",),
        examples=("parasail-ai/GritLM-7B-vllm",),
        attention="both ways",
        complete=_embedding_mode,
    ),
    model_type="mistral",
    pooling="mean",
    include_prompt=False,
    prompt_marks=PromptMarks(start="<|user|>\n", end="<|embed|>\n"),
    prompts={"query": "<|embed|>\n", "document": "<|embed|>\n"},
    default_prompt="document",
)
