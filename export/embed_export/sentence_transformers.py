"""What a checkpoint's Sentence-Transformers files say: modules, limits, prompts, similarity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embed_export.json_object import JsonObject, read_object
from embed_export.modules import Modules, read_modules
from embed_runtime.manifest import Pooling, Similarity

PROMPTS_NAME = "config_sentence_transformers.json"
# The first one that is there counts (Sentence-Transformers 6.2, base/modules/transformer.py).
TRANSFORMER_NAMES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

_SIMILARITIES: dict[str, Similarity] = {
    "cosine": "cosine",
    "dot": "dot",
    "euclidean": "euclidean",
    "manhattan": "manhattan",
}
_MODEL_TYPES = ("SentenceTransformer", "SparseEncoder")
_MULTI_VECTOR_KEYS = ("query_length", "document_length", "query_expansion")
_NESTED_KEYS = (
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "processing_kwargs",
)
# Those of them that leave every vector as it is.
_HARMLESS_KEYS = {
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "padding_side",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
    "use_safetensors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceTransformersFiles:
    """What the files say; a checkpoint without them says nothing.

    Attributes:
        modules: Pooling, heads, normalization.
        max_tokens: Texts are cut at this length, special tokens included; None if not said.
        lowercase: Texts are lowercased ahead of the tokenizer's own normalization;
            `resolve_tokenizer` bakes that in, nobody else has to do it.
        prompts: Texts to put in front, by name.
        default_prompt: Name of the one that is used when the caller names none.
        similarity: How vectors are compared; None if not said.
        truncate_dimensions: Vectors are cut to this size when the caller names none; None keeps
            them whole. Sentence-Transformers cuts after normalizing and does not normalize again.
    """

    modules: Modules = field(default_factory=Modules)
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    similarity: Similarity | None = None
    truncate_dimensions: int | None = None


def read_sentence_transformers(
    folder: Path, *, pooling: Pooling | None = None
) -> SentenceTransformersFiles:
    """Read a checkpoint's Sentence-Transformers files, as far as it has them.

    Args:
        folder: The checkpoint, as the hub has it.
        pooling: The caller's own choice; the Pooling module's settings are then not read.

    Raises:
        UnsupportedModelError: They ask for something we do not compute.
        ExportError: A file is damaged, contradicts another, or lies outside the folder.
    """
    modules = read_modules(folder, pooling=pooling)
    transformer = _read_first(folder / modules.backbone_path, TRANSFORMER_NAMES)
    settings = _read_first(folder, (PROMPTS_NAME,))
    _check_transformer(transformer, is_sparse=modules.splade is not None)
    prompts = _prompts(settings)
    return SentenceTransformersFiles(
        modules=modules,
        max_tokens=_positive(transformer, "max_seq_length"),
        lowercase=transformer.find("do_lower_case", bool, False),
        prompts=prompts,
        default_prompt=_default_prompt(settings, prompts),
        similarity=settings.find_word("similarity_fn_name", _SIMILARITIES),
        truncate_dimensions=_positive(settings, "truncate_dim"),
    )


def _read_first(folder: Path, names: tuple[str, ...]) -> JsonObject:
    for name in names:
        if (folder / name).exists():
            return read_object(folder / name, source=name)
    return JsonObject({}, source=names[0])


def _check_transformer(transformer: JsonObject, *, is_sparse: bool) -> None:
    """Refuse what would change the token vectors behind the recipe's back."""
    task = "fill-mask" if is_sparse else "feature-extraction"
    if transformer.find("transformer_task", str, task) != task:
        raise transformer.unsupported("transformer_task", task)
    if transformer.find("module_output_name", str, "token_embeddings") != "token_embeddings":
        raise transformer.unsupported("module_output_name", "token_embeddings")
    modalities = transformer.find_object("modality_config")
    text = JsonObject({}, source="") if modalities is None else modalities.find_object("text")
    output = "logits" if is_sparse else "last_hidden_state"
    if text is None or text.find("method_output_name", str, output) != output:
        raise transformer.unsupported("modality_config", f"text with method_output_name {output}")
    for key in _MULTI_VECTOR_KEYS:
        if transformer.get(key) is not None:
            raise transformer.unsupported(key, "null")
    for key in _NESTED_KEYS:
        nested = transformer.find_object(key)
        if nested is not None and nested.keys() - _HARMLESS_KEYS:
            raise transformer.unsupported(
                key, "an empty object; move settings of the model to config.json or --hf-overrides"
            )


def _prompts(settings: JsonObject) -> dict[str, str]:
    if settings.find("model_type", str, _MODEL_TYPES[0]) not in _MODEL_TYPES:
        raise settings.unsupported("model_type", " or ".join(_MODEL_TYPES))
    prompts = settings.find_object("prompts")
    if prompts is None:
        return {}
    return {name: prompts.require(name, str) for name in prompts if prompts[name] is not None}


def _default_prompt(settings: JsonObject, prompts: Mapping[str, str]) -> str | None:
    name = settings.find("default_prompt_name", str)
    if name is not None and name not in prompts:
        raise settings.wrong(
            "default_prompt_name", f"one of the prompts: {', '.join(prompts) or 'there are none'}"
        )
    return name


def _positive(settings: JsonObject, key: str) -> int | None:
    value = settings.find(key, int)
    if value is not None and value < 1:
        raise settings.wrong(key, "1 or more")
    return value
