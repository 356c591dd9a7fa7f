"""Sentence-Transformers' `modules.json`: the chain from token vectors to the embedding.

The layout is that of Sentence-Transformers 6.2 and of all releases before it. A module, an order or
a setting that we do not compute is refused by name.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.json_object import JsonObject, read_json, read_object
from embed_export.weight_files import open_weights
from embed_export.weights import Weights
from embed_runtime.manifest import Activation, Dense, Pooling, PoolingMode
from embed_runtime.types import FloatArray

MODULES_NAME = "modules.json"

_Kind: TypeAlias = Literal["backbone", "pooling", "splade", "dense", "normalize", "nothing"]

# By class name alone: the package path in front of it has changed several times.
_KINDS: dict[str, _Kind] = {
    "Transformer": "backbone",
    "MLMTransformer": "backbone",
    "Pooling": "pooling",
    "SpladePooling": "splade",
    "Dense": "dense",
    "Normalize": "normalize",
    "Dropout": "nothing",  # outside training
}
# What may come after what.
_FOLLOWERS: dict[_Kind | None, tuple[_Kind, ...]] = {
    None: ("backbone",),
    "backbone": ("pooling", "splade"),
    "pooling": ("dense", "normalize"),
    "dense": ("dense", "normalize"),
    "normalize": ("normalize",),
    "splade": (),
}
_OWN = f"Sentence-Transformers' own {', '.join(_KINDS)}"
_ORDER = "Transformer; Pooling or SpladePooling; after Pooling any Dense, then Normalize"

# Several true flags are concatenated in this order (sentence_transformer/modules/pooling.py).
_POOLING_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_MODES: dict[str, PoolingMode] = {mode: mode for mode in _POOLING_FLAGS.values()}
_POOLING_KEYS = {
    *_POOLING_FLAGS,
    "pooling_mode",
    "include_prompt",
    "embedding_dimension",
    "word_embedding_dimension",
}
_SPLADE_STRATEGIES: dict[str, Literal["max", "sum"]] = {"max": "max", "sum": "sum"}
_SPLADE_DOUBLE_LOG = {"relu": False, "log1p_relu": True}
_DENSE_KEYS = {
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
}
_DENSE_PREFIXES = ("linear.", "", "dense.")
_ACTIVATIONS: dict[str, Activation] = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseHead:
    """A Dense module: what it computes, and its weights.

    Attributes:
        spec: As the manifest says it; the activation is one of identity, tanh, relu, gelu
            (with erf), sigmoid, silu.
        weights: Its file, opened.
    """

    spec: Dense
    weights: Weights = field(repr=False)

    def read(self) -> tuple[FloatArray, FloatArray | None]:
        """Read the weight [out, in] float32 and, if it has one, the bias [out] float32.

        Raises:
            ExportError: The file holds other tensors than these.
        """
        has_weight = (name for name in _DENSE_PREFIXES if self.weights.has(f"{name}weight"))
        prefix = next(has_weight, _DENSE_PREFIXES[0])
        shape = (self.spec.out_features, self.spec.in_features)
        weight = self.weights.take(f"{prefix}weight", shape)
        bias = self.weights.take(f"{prefix}bias", shape[:1]) if self.spec.bias else None
        if unused := self.weights.unused():
            raise ExportError(f"a Dense module has weights it does not use: {', '.join(unused)}")
        return weight, bias


@dataclass(frozen=True, slots=True, kw_only=True)
class SpladePooling:
    """A SPLADE head: logits over the vocabulary, activated, then pooled over the tokens.

    Attributes:
        strategy: How the tokens are pooled.
        double_log: Whether the activation is log1p(log1p(relu(x))) instead of log1p(relu(x)).
    """

    strategy: Literal["max", "sum"]
    double_log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """What `modules.json` says.

    Attributes:
        backbone: The transformer's own line, where its code lies in the repository; else None.
        backbone_path: Folder of the transformer inside the checkpoint; "" for the checkpoint's own.
        pooling: How token vectors become one; None where nothing is said.
        token_dimensions: Width of the token vectors that pooling expects; None if not said.
        heads: The Dense modules after pooling, in order.
        normalize: Whether vectors are scaled to unit length; None where nothing is said.
        splade: The sparse head that stands in place of pooling, or None.
    """

    backbone: JsonObject | None = None
    backbone_path: str = ""
    pooling: Pooling | None = None
    token_dimensions: int | None = None
    heads: tuple[DenseHead, ...] = ()
    normalize: bool | None = None
    splade: SpladePooling | None = None

    def check_backbone(self, custom: Sequence[str]) -> None:
        """Refuse a transformer of the repository's own, unless it is one of these types.

        Raises:
            UnsupportedModelError: It is another.
        """
        if self.backbone is not None and self.backbone["type"] not in custom:
            raise self.backbone.unsupported("type", _OWN)


def read_modules(folder: Path, *, pooling: Pooling | None = None) -> Modules:
    """Read `modules.json` and the files it names; nothing is said where it is not there.

    Args:
        folder: The checkpoint, as the hub has it.
        pooling: The caller's own choice; the Pooling module's settings are then not read.

    Raises:
        UnsupportedModelError: It asks for something we do not compute.
        ExportError: A file is damaged, contradicts another, or lies outside the folder.
    """
    modules = Modules(pooling=pooling)
    if not (folder / MODULES_NAME).exists():
        return modules
    previous: _Kind | None = None
    for entry in _read_entries(folder):
        kind = _kind(entry)
        if kind == "nothing":
            continue
        if kind not in _FOLLOWERS[previous]:
            raise entry.unsupported("type", f"the order {_ORDER}")
        if previous is None and not _is_own(entry):
            modules = replace(modules, backbone=entry)
        modules = _add_module(modules, kind, folder, _path(entry, folder))
        previous = kind
    return modules


def _read_entries(folder: Path) -> tuple[JsonObject, ...]:
    content = {"modules": read_json(folder / MODULES_NAME, source=MODULES_NAME)}
    entries = JsonObject(content, source=MODULES_NAME).find_objects("modules")
    if not entries:
        raise ExportError(f"{MODULES_NAME} lists no modules; the file is damaged, fetch it again")
    return entries


def _kind(entry: JsonObject) -> _Kind:
    name = entry.require("type", str).rpartition(".")[2]
    # A transformer with code in the repository may be one that the recipe knows.
    if name not in _KINDS or not (_is_own(entry) or _KINDS[name] == "backbone"):
        raise entry.unsupported("type", _OWN)
    return _KINDS[name]


def _is_own(entry: JsonObject) -> bool:
    return entry.require("type", str).startswith("sentence_transformers.")


def _path(entry: JsonObject, folder: Path) -> str:
    path = entry.require("path", str)
    plain = ".." not in PurePosixPath(path).parts and not {"\\", "\0"} & set(path)
    if not plain or not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise entry.wrong("path", "a folder inside the checkpoint")
    return path


def _add_module(modules: Modules, kind: _Kind, folder: Path, path: str) -> Modules:
    if kind == "backbone":
        return replace(modules, backbone_path=path)
    config = _read_config(folder, path)
    if kind == "pooling":
        # Sentence-Transformers normalizes only where a Normalize module says so.
        modules = replace(modules, normalize=False)
        return modules if modules.pooling else _add_pooling(modules, config)
    if kind == "splade":
        return replace(modules, splade=_splade(config), normalize=False)
    _check_works_on_vectors(config)
    if kind == "dense":
        head = DenseHead(spec=_dense(modules, config), weights=open_weights(folder / path))
        return replace(modules, heads=(*modules.heads, head))
    return replace(modules, normalize=True)


def _read_config(folder: Path, path: str) -> JsonObject:
    """Read a module's settings; a module that has none needs no file."""
    file = folder / path / "config.json"
    source = f"{path}/config.json"
    return read_object(file, source=source) if file.exists() else JsonObject({}, source=source)


def _add_pooling(modules: Modules, config: JsonObject) -> Modules:
    if not config:
        raise ExportError(
            f"{config.source} is missing; fetch it, or name the pooling yourself (--pooling)"
        )
    _check_keys(config, _POOLING_KEYS)
    old_width = config.find("word_embedding_dimension", int)
    return replace(
        modules,
        pooling=Pooling(
            modes=_pooling_modes(config), include_prompt=config.find("include_prompt", bool, True)
        ),
        token_dimensions=config.find("embedding_dimension", int) or old_width,
    )


def _pooling_modes(config: JsonObject) -> tuple[PoolingMode, ...]:
    """Resolve the modes as Sentence-Transformers does; where nothing is said, mean."""
    value = config.get("pooling_mode")
    if value is None:
        flags: list[PoolingMode] = [
            mode for flag, mode in _POOLING_FLAGS.items() if config.find(flag, bool)
        ]
        return tuple(flags) or ("mean",)
    names = (value,) if isinstance(value, str) else config.find_list("pooling_mode", str)
    if not names or not _POOLING_MODES.keys() >= set(names):
        raise config.wrong("pooling_mode", f"one or more of {', '.join(_POOLING_MODES)}")
    modes: list[PoolingMode] = [_POOLING_MODES[name] for name in names]
    return tuple(modes)


def _splade(config: JsonObject) -> SpladePooling:
    return SpladePooling(
        strategy=config.find_word("pooling_strategy", _SPLADE_STRATEGIES) or "max",
        double_log=config.find_word("activation_function", _SPLADE_DOUBLE_LOG) or False,
    )


def _dense(modules: Modules, config: JsonObject) -> Dense:
    _check_keys(config, _DENSE_KEYS)
    if config.find("use_residual", bool, False):
        raise config.unsupported("use_residual", "false")
    in_features = config.require("in_features", int)
    width = _vector_width(modules)
    if width is not None and in_features != width:
        raise config.wrong("in_features", f"{width}, what the module before it gives")
    return Dense(
        in_features=in_features,
        out_features=config.require("out_features", int),
        bias=config.find("bias", bool, True),
        activation=_activation(config),
    )


def _vector_width(modules: Modules) -> int | None:
    """Say how wide the vector is after the modules so far, if that is known."""
    if modules.heads:
        return modules.heads[-1].spec.out_features
    if modules.pooling is None or modules.token_dimensions is None:
        return None
    return len(modules.pooling.modes) * modules.token_dimensions


def _activation(config: JsonObject) -> Activation:
    if "activation_function" not in config:
        return "tanh"  # what the module's constructor takes
    package, _, name = config.require("activation_function", str).rpartition(".")
    if not package.startswith("torch.nn") or name not in _ACTIVATIONS:
        supported = ", ".join(f"torch.nn.{name}" for name in _ACTIVATIONS)
        raise config.unsupported("activation_function", f"one of {supported}")
    return _ACTIVATIONS[name]


def _check_works_on_vectors(config: JsonObject) -> None:
    for key in ("module_input_name", "module_output_name"):
        if config.find(key, str, "sentence_embedding") != "sentence_embedding":
            raise config.unsupported(key, '"sentence_embedding"')


def _check_keys(config: JsonObject, known: AbstractSet[str]) -> None:
    if unknown := sorted(config.keys() - known):
        raise UnsupportedModelError(
            f"{config.source} has settings we do not know: {', '.join(unknown)}; known are"
            f" {', '.join(sorted(known))}"
        )
