"""Tiny random encoders with rotary positions, in the formats in which they are published."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export.config import ExportConfig
from embed_export.dialects import write_graphs
from embed_export.source import Source, read_source
from embed_runtime.manifest import Dialect
from tests.recipes.encoders.families import FAMILIES, Array, Maker, Settings, Tensors

Original = Callable[[Sequence[int]], Array]
RunGraphs = Callable[..., Mapping[Dialect, Array]]

# Their types are loose.
torch: Any = import_module("torch")
transformers: Any = import_module("transformers")
onnxruntime: Any = import_module("onnxruntime")

# Rows of every batch: alone, in company of other lengths, and a row of two tokens.
BATCHES = ([9], [2], [40, 3, 17], [5, 40], [31, 32, 33, 2])


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A checkpoint on disk, with what it was made from."""

    name: str
    folder: Path
    config: Settings
    tensors: Tensors

    def source(self, **settings: Any) -> Source:
        """Read it as the exporter does."""
        return read_source(ExportConfig(model=str(self.folder), **settings))

    def load_native(self, state: Any = None, **native: Any) -> Any:
        """Load transformers' class in float32, from the checkpoint or from tensors given."""
        family = FAMILIES[self.name]
        settings = {key: self.config[key] for key in family.as_published}
        settings |= {**family.native, **native}
        config = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
        model, loading = transformers.MODEL_MAPPING[type(config)].from_pretrained(
            self.folder if state is None else None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
        )
        assert not {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
        return model.eval()

    def original(self, state: Any = None, **native: Any) -> Original:
        """Give transformers' token vectors, [T, H] of one row of ids."""
        return _run_alone(self.load_native(state, **native))


@pytest.fixture
def make(tmp_path: Path, dummy_tokenizer: Tokenizer) -> Callable[..., Tiny]:
    """Writes a tiny checkpoint: `make("gte", rope_theta=10000)`; keywords are config.json's."""

    def make(name: str, **config: Any) -> Tiny:
        family = FAMILIES[name]
        folder = tmp_path / name
        folder.mkdir()
        dummy_tokenizer.save(str(folder / "tokenizer.json"))
        words = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
        words |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
        _write_json(
            folder / "tokenizer_config.json",
            {**words, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 << 40},
        )
        settings = {**family.config, "vocab_size": dummy_tokenizer.get_vocab_size(), **config}
        _write_json(folder / "config.json", settings)
        maker = Maker(seed=0)
        family.tensors(maker, settings)
        save_file(maker.tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return Tiny(name=name, folder=folder, config=settings, tensors=maker.tensors)

    return make


@pytest.fixture
def run_graphs(tmp_path: Path) -> Callable[..., dict[Dialect, Array]]:
    """Runs rows through both dialects; gives their token vectors, rows one after another."""

    def run_graphs(
        source: Source,
        rows: Sequence[Sequence[int]],
        dialects: Sequence[Dialect] = ("padded", "packed"),
        *,
        adapters: Sequence[int] | None = None,
    ) -> dict[Dialect, Array]:
        folder = tmp_path / "bundle"
        if not folder.exists():
            folder.mkdir()
            write_graphs(folder, source)
        lengths = [len(row) for row in rows]
        slots = np.arange(max(lengths)) < np.array(lengths)[:, None]
        padded = np.zeros(slots.shape, np.int64)
        padded[slots] = np.concatenate(rows)
        chosen = np.full(len(rows), -1) if adapters is None else np.array(adapters)
        indices = np.zeros_like(padded)
        indices[slots] = np.arange(sum(lengths))
        feeds: dict[str, dict[str, Array]] = {
            "padded": {
                "input_ids": padded,
                "attention_mask": slots.astype(np.int64),
                "adapter_ids": chosen,
            },
            "packed": {
                "input_ids": padded[slots],
                "position_ids": np.nonzero(slots)[1],
                "pad_index": indices,
                "unpad_index": np.flatnonzero(slots),
                "attention_mask": slots.astype(np.float32),
                "adapter_ids": np.repeat(chosen, lengths),
            },
        }
        results: dict[Dialect, Array] = {}
        for dialect in dialects:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                folder / "graphs" / f"{dialect}.onnx", options, providers=["CPUExecutionProvider"]
            )
            feed = {one.name: feeds[dialect][one.name] for one in session.get_inputs()}
            (tokens,) = session.run(["token_embeddings"], feed)
            results[dialect] = tokens[slots] if dialect == "padded" else tokens
        return results

    return run_graphs


@pytest.fixture
def run_alone() -> Callable[[Any], Original]:
    """Gives a function from one row of ids to a model's [T, H] token vectors."""
    return _run_alone


@pytest.fixture
def random_rows() -> Callable[..., list[list[int]]]:
    """Makes rows of ids of these lengths."""
    return _random_rows


@pytest.fixture
def cosine() -> Callable[[Array, Array], float]:
    """Gives the smallest cosine of two lists of vectors, pair by pair."""
    return _cosine


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Name of each family in turn."""
    name: str = request.param
    return name


@pytest.fixture
def check(run_graphs: RunGraphs) -> Callable[[Source, Original], None]:
    """Compares every token of uneven batches, in this order and in the other."""

    def check(source: Source, original: Original) -> None:
        for lengths in BATCHES:
            rows = _random_rows(lengths)
            expected = [original(row) for row in rows]
            for order in (1, -1):
                wanted = np.concatenate(expected[::order])
                for tokens in run_graphs(source, rows[::order]).values():
                    assert _cosine(tokens, wanted) >= 0.99999
                    assert np.abs(tokens - wanted).max() < 1e-4 * np.abs(wanted).max()

    return check


def _run_alone(model: Any) -> Original:
    """Give a function from one row of ids to its [T, H] token vectors."""

    def tokens(row: Sequence[int]) -> Array:
        with torch.inference_mode():
            ids = torch.tensor([list(row)])
            states: Array = model(input_ids=ids).last_hidden_state[0].numpy()
        return states

    return tokens


def _random_rows(lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, 200, length).tolist() for length in lengths]


def _cosine(vectors: Array, others: Array) -> float:
    lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(others, axis=-1)
    return float((np.einsum("nd,nd->n", vectors, others) / lengths).min())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
