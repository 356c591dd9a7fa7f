"""Tiny random decoders in the format in which the hub publishes each family."""

# transformers and torch leave the types of what they give open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export import export, measure
from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.source import Source, read_source
from embed_runtime.engines import BuildSpec, BuiltEngine, get_backend
from embed_runtime.manifest import Dialect
from tests.recipes.families import FAMILIES, Array, Family, Settings, make_tensors
from tests.recipes.tiny_tokenizers import TOKENIZERS

Rows = Sequence[Sequence[int]]
# Gives the [T, D] token vectors of one row of ids.
Original = Callable[[Sequence[int]], Array]


@dataclass(frozen=True, kw_only=True)
class TinyDecoder:
    """A checkpoint on disk, with what it was made from.

    Attributes:
        folder: The checkpoint.
        family: How it is published.
        config: Its config.json.
        tensors: Its tensors, float32.
    """

    folder: Path
    family: Family
    config: Settings
    tensors: Mapping[str, Array]

    def original(self) -> Original:
        """Load transformers' own model, by another way than the exporter's."""
        changes = self.family.native
        # transformers completes nested objects in place.
        settings: Settings = deepcopy({**self.config, **changes})
        for key in ("auto_map", *changes):
            if settings.get(key) is None and key != "sliding_window":
                settings.pop(key, None)
        config: Any = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
        # The other implementation has no soft cap.
        config._attn_implementation = "eager" if self.family.sandwich else "sdpa"
        create: Any = transformers.AutoModel.from_config
        model = create(config, dtype=torch.float32).eval()
        prefix = self.family.prefix
        state = {
            name.removeprefix(prefix): torch.from_numpy(tensor)
            for name, tensor in self.tensors.items()
            if name.startswith(prefix) and name not in {"lm_head.weight", "linear.weight"}
        }
        model.load_state_dict(state, strict=True)
        head = self.tensors.get("linear.weight")

        def token_vectors(row: Sequence[int]) -> Array:
            with torch.inference_mode():
                outputs = model(input_ids=torch.tensor([row]))
            states: Array = outputs.last_hidden_state[0].numpy()
            return states if head is None else states @ head.T

        return token_vectors


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tiny models are faster without threads that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def families() -> dict[str, Family]:
    """How each family is published, by a name for tests; more than one for some recipes."""
    return FAMILIES


@pytest.fixture(scope="module")
def fast_exports(short_timing: None) -> Iterator[None]:
    """Build engines in this process, and time them hardly at all."""

    def build_here(backend: str, spec: BuildSpec) -> BuiltEngine:
        return get_backend(backend).build(spec)

    def no_texts(limit: int) -> list[str]:
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "build_engine", build_here)
        # Reading the standard library for texts takes longer than anything else here.
        patch.setattr(measure, "real_texts", no_texts)
        yield


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Source]]:
    """Writes the graphs of a checkpoint, and nothing else of a bundle."""

    def write(checkpoint: Path, **settings: Any) -> tuple[Path, Source]:
        folder = tmp_path_factory.mktemp("graphs")
        source = read_source(ExportConfig(model=str(checkpoint), **settings))
        write_graphs(folder, source)
        return folder, source

    return write


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., list[Array]]:
    """Runs one dialect of a bundle over rows of ids; gives the [T, D] token vectors of each row.

    `left` pads the rows of the padded dialect at their front.
    """

    def run_graph(folder: Path, dialect: Dialect, rows: Rows, *, left: bool = False) -> list[Array]:
        onnxruntime: Any = import_module("onnxruntime")
        session = onnxruntime.InferenceSession(folder / "graphs" / f"{dialect}.onnx")
        wanted = {one.name for one in session.get_inputs()}
        packed = dialect != "padded"
        inputs = _pack(rows) if packed else _pad(rows, left=left)
        feeds = {name: array for name, array in inputs.items() if name in wanted}
        [states] = session.run(["token_embeddings"], feeds)
        if not packed:
            states = np.asarray(states)[inputs["attention_mask"] == 1]
        ends = np.cumsum([len(row) for row in rows])
        return np.split(np.asarray(states), ends[:-1])

    return run_graph


def _pack(rows: Rows) -> dict[str, Array]:
    width = max(len(row) for row in rows)
    slots = [(index, slot) for index, row in enumerate(rows) for slot in range(len(row))]
    pad_index = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.float32)
    for token, (index, slot) in enumerate(slots):
        pad_index[index, slot] = token
        mask[index, slot] = 1
    return {
        "input_ids": np.concatenate([np.asarray(row, np.int64) for row in rows]),
        "position_ids": np.array([slot for _, slot in slots], np.int64),
        "pad_index": pad_index,
        "unpad_index": np.array([index * width + slot for index, slot in slots], np.int64),
        "attention_mask": mask,
        "pool_mask": mask,
    }


def _pad(rows: Rows, *, left: bool) -> dict[str, Array]:
    width = max(len(row) for row in rows)
    input_ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        start = width - len(row) if left else 0
        input_ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "pool_mask": mask.astype(np.float32),
    }


@pytest.fixture(scope="session")
def make_decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyDecoder]:
    """Writes tiny decoders: `make_decoder("qwen3", config={...})`.

    `config` replaces keys of config.json. `pooling` is the mode of a Pooling module, followed by
    Dense modules of the widths in `dense` and a Normalize module; without it there are no
    Sentence-Transformers files. `extra` tensors lie beside the model's, those in `without` do not.
    """
    trained: dict[str, Tokenizer] = {}

    def make(
        name: str,
        *,
        config: Settings | None = None,
        pooling: str | None = None,
        dense: tuple[int, ...] = (),
        extra: Mapping[str, Array] | None = None,
        without: Sequence[str] = (),
        seed: int = 0,
    ) -> TinyDecoder:
        family = FAMILIES[name]
        folder = tmp_path_factory.mktemp(f"tiny-{name}-")
        train, tokenizer_config = TOKENIZERS[family.tokenizer]
        if family.tokenizer not in trained:
            trained[family.tokenizer] = train()
        tokenizer = trained[family.tokenizer]
        tokenizer.save(str(folder / "tokenizer.json"))
        settings: Settings = {**family.config, "vocab_size": tokenizer.get_vocab_size()}
        settings |= config or {}
        _write_json(folder / "config.json", settings)
        _write_json(
            folder / "tokenizer_config.json", {**tokenizer_config, "model_max_length": 1 << 40}
        )
        tensors = make_tensors(family, settings, seed)
        stored = {**tensors, **(extra or {})}
        stored = {
            key: tensor.astype(np.float32) for key, tensor in stored.items() if key not in without
        }
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        if pooling:
            _write_modules(folder, family.head or settings["hidden_size"], pooling, dense)
        return TinyDecoder(folder=folder, family=family, config=settings, tensors=tensors)

    return make


def _write_modules(folder: Path, width: int, pooling: str, dense: tuple[int, ...]) -> None:
    package = "sentence_transformers.models"
    modules = [("", f"{package}.Transformer"), ("1_Pooling", f"{package}.Pooling")]
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, f"pooling_mode_{pooling}": True},
    )
    random = np.random.default_rng(1)
    for number, out_features in enumerate(dense, 2):
        path = folder / f"{number}_Dense"
        path.mkdir()
        _write_json(
            path / "config.json",
            {
                "in_features": width,
                "out_features": out_features,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        weight = random.normal(0, 0.2, (out_features, width)).astype(np.float32)
        save_file({"linear.weight": weight}, path / "model.safetensors", metadata={"format": "pt"})
        modules.append((path.name, f"{package}.Dense"))
        width = out_features
    modules.append((f"{len(modules)}_Normalize", f"{package}.Normalize"))
    _write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": kind}
            for index, (path, kind) in enumerate(modules)
        ],
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
