"""A checkpoint as the hub publishes it: opened, checked, and never executed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from embed_export.errors import ExportError
from embed_export.hub import cached_model, download
from embed_export.json_object import JsonObject, read_object
from embed_export.sentence_transformers import SentenceTransformersFiles, read_sentence_transformers
from embed_export.weight_files import open_weights
from embed_export.weights import Weights
from embed_runtime.manifest import MANIFEST_NAME, Pooling

CONFIG_NAME = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's folder and what its files say.

    Attributes:
        id: Hub id, or the folder's name.
        revision: The commit, if it is known.
        folder: The checkpoint, as the hub has it.
        model_folder: Where config.json, weights and tokenizer are; `folder`, but for some old
            Sentence-Transformers models.
        config: config.json with the caller's overrides.
        model_type: Its `model_type`.
        architecture: The first of its `architectures`; the model type where none is named.
        license: As the model card's header names it.
        weights: The tensors, unread.
        sentence_transformers: What Sentence-Transformers' files say.
        prompts: Texts to put in front, by name.
        matryoshka: Smaller sizes of the vectors, as `Dimensions.matryoshka` takes them.
    """

    id: str
    revision: str | None
    folder: Path
    model_folder: Path
    config: JsonObject
    model_type: str
    architecture: str
    license: str | None
    weights: Weights = field(repr=False)
    sentence_transformers: SentenceTransformersFiles
    prompts: Mapping[str, str]
    matryoshka: tuple[int, ...] | None


def open_checkpoint(
    model: str,
    *,
    revision: str | None = None,
    hf_overrides: Mapping[str, object] | None = None,
    pooling: Pooling | None = None,
) -> Checkpoint:
    """Open a checkpoint and check every file but the tokenizer's; no tensor is read yet.

    Args:
        model: A folder, or a hub id.
        revision: Branch, tag or commit on the hub; None for its main branch.
        hf_overrides: Values that replace those of config.json; an object given for a nested
            `*_config` is merged into it instead.
        pooling: The caller's own choice; the Pooling module's settings are then not read.

    Raises:
        UnsupportedModelError: It asks for something we do not compute.
        ExportError: It is not there, not a model, or damaged.
    """
    folder = _locate(model, revision=revision)
    files = read_sentence_transformers(folder, pooling=pooling)
    model_folder = folder / files.modules.backbone_path
    config = _read_config(model_folder, hf_overrides or {})
    model_type = config.require("model_type", str)
    model_id, revision = cached_model(folder) or (folder.resolve().name, None)
    architectures = config.find_list("architectures", str)
    return Checkpoint(
        id=model_id if Path(model).is_dir() else model,
        revision=revision,
        folder=folder,
        model_folder=model_folder,
        config=config,
        model_type=model_type,
        architecture=architectures[0] if architectures else model_type,
        license=_read_license(folder / "README.md"),
        weights=open_weights(model_folder),
        sentence_transformers=files,
        prompts=_prompts(config, files),
        matryoshka=_matryoshka(config),
    )


def _locate(model: str, *, revision: str | None) -> Path:
    folder = Path(model)
    if model and folder.is_dir():
        if revision is not None:
            raise ExportError(
                f"{model} is a folder, which has no revisions; leave the revision out"
            )
        return folder
    if folder.is_file():
        raise ExportError(f"{model} is a file; name the folder it is in")
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model, re.ASCII) is None:
        raise ExportError(f"no such folder: {model!r}")
    return download(model, revision=revision)


def _read_config(folder: Path, overrides: Mapping[str, object]) -> JsonObject:
    if not (folder / CONFIG_NAME).exists():
        raise ExportError(f"{folder} is not a model: it has no {CONFIG_NAME}{_what_it_is(folder)}")
    config = dict(read_object(folder / CONFIG_NAME, source=CONFIG_NAME))
    for key, value in overrides.items():
        _override(config, key, value)
    merged = JsonObject(config, source=CONFIG_NAME)
    if merged.find_object("quantization_config") is not None:
        raise merged.unsupported("quantization_config", "null; export the original checkpoint")
    return merged


def _what_it_is(folder: Path) -> str:
    if (folder / MANIFEST_NAME).exists():
        return "; it is a bundle already: embed-serve takes it"
    if (folder / "adapter_config.json").exists():
        return "; it is a LoRA adapter: merge it into its base model first"
    return ""


def _override(config: dict[str, object], key: str, value: object) -> None:
    """Set one value as vLLM's --hf-overrides does: nested configs are merged, all else replaced."""
    old = config.get(key)
    if key.endswith("_config") and isinstance(old, dict) and isinstance(value, Mapping):
        nested = dict(cast("dict[str, object]", old))
        for nested_key, nested_value in cast("Mapping[str, object]", value).items():
            _override(nested, nested_key, nested_value)
        config[key] = nested
    else:
        config[key] = value


def _read_license(card: Path) -> str | None:
    """Find the licence in a model card's YAML header; `license_name` where it is "other"."""
    if not card.exists():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    header = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    if header is None:
        return None
    fields = r"^(license|license_name):[ \t]*['\"]?([^\s'\"#]+)"
    found: dict[str, str] = dict(re.findall(fields, header[1], re.MULTILINE))
    name = found.get("license")
    return found.get("license_name", name) if name == "other" else name


def _prompts(config: JsonObject, files: SentenceTransformersFiles) -> Mapping[str, str]:
    """Take `task_instructions` of config.json, as vLLM does, else the prompts of the files."""
    instructions = config.find_object("task_instructions")
    if not instructions:
        return files.prompts
    return {name: instructions.require(name, str) for name in instructions}


def _matryoshka(config: JsonObject) -> tuple[int, ...] | None:
    """Read the two fields vLLM reads: a list of sizes, or just that any size will do."""
    sizes = config.find_list("matryoshka_dimensions", int)
    if sizes:
        if min(sizes) < 1:
            raise config.wrong("matryoshka_dimensions", "a list of sizes from 1 up")
        return tuple(sorted(set(sizes)))
    return () if config.find("is_matryoshka", bool) else None
