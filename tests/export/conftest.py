"""Tiny random checkpoints, in the format in which the hub publishes each family."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from tests.export.families import FAMILIES, POSITIONS, WIDTH, Array, Maker, make_tensors
from tests.export.tiny_tokenizers import TRAINERS


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tiny models are faster without threads that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[[str], Tokenizer]:
    """Trains each kind of tokenizer once: wordpiece, mpnet, bytes, unigram, camembert."""
    trained: dict[str, Tokenizer] = {}

    def tiny_tokenizer(kind: str) -> Tokenizer:
        if kind not in trained:
            trained[kind] = TRAINERS[kind]()
        return trained[kind]

    return tiny_tokenizer


_NUMPY_DTYPES: dict[str, npt.DTypeLike] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
}
_MODULE_TYPES = {
    "old": {
        "Transformer": "sentence_transformers.models.Transformer",
        "Pooling": "sentence_transformers.models.Pooling",
        "Dense": "sentence_transformers.models.Dense",
        "Normalize": "sentence_transformers.models.Normalize",
    },
    "new": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    },
}
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


class MakeCheckpoint:
    """Writes tiny checkpoints, each into a folder of its own that a test may damage."""

    def __init__(
        self, make_folder: Callable[[str], Path], tiny_tokenizer: Callable[[str], Tokenizer]
    ) -> None:
        self._make_folder = make_folder
        self._tiny_tokenizer = tiny_tokenizer

    def __call__(
        self,
        family: str,
        *,
        pooling: Sequence[str] | None = None,
        include_prompt: bool = True,
        heads: Sequence[tuple[int, str]] = (),
        normalize: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        module_names: Literal["old", "new"] = "old",
        dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
        storage: Literal["safetensors", "sharded", "pickle", "sharded-pickle"] = "safetensors",
        prefixed: bool = False,
        legacy_norms: bool = False,
        config: Mapping[str, object] | None = None,
        tokenizer_config: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> Path:
        """Write one.

        Args:
            family: One of `FAMILIES`.
            pooling: Modes of a Pooling module; None writes no Sentence-Transformers files.
            include_prompt: For the Pooling module.
            heads: (out_features, torch.nn class name) of each Dense module.
            normalize: Whether there is a Normalize module.
            prompts: For config_sentence_transformers.json, as are the next two.
            default_prompt_name: Name of a prompt.
            similarity_fn_name: Word for the similarity.
            max_seq_length: For sentence_bert_config.json, as is the next one.
            do_lower_case: Whether texts are lowercased first.
            module_names: Module types and pooling settings as old or as new releases write them.
            dtype: How floating point weights are stored.
            storage: One safetensors file or two with an index, or pickles.
            prefixed: Saved as the masked language model: a prefix on each name, a head beside it.
            legacy_norms: LayerNorm's gamma and beta.
            config: More keys for config.json.
            tokenizer_config: More keys for tokenizer_config.json.
            seed: Of the weights.
        """
        folder = self._make_folder(f"tiny-{family}-")
        how = FAMILIES[family]
        tokenizer = self._tiny_tokenizer(how.tokenizer)
        tokenizer.save(str(folder / "tokenizer.json"))
        _write_json(
            folder / "tokenizer_config.json", {**how.tokenizer_config, **(tokenizer_config or {})}
        )
        settings = {**how.config, "vocab_size": tokenizer.get_vocab_size(), **(config or {})}
        if prefixed:
            settings["architectures"] = [how.head_architecture]
        _write_json(folder / "config.json", settings)
        tensors = make_tensors(how, settings, prefixed=prefixed, seed=seed)
        if legacy_norms:
            for new, old in (("weight", "gamma"), ("bias", "beta")):
                new, old = f"LayerNorm.{new}", f"LayerNorm.{old}"
                tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
        stored = {name: tensor.astype(_NUMPY_DTYPES[dtype]) for name, tensor in tensors.items()}
        # A buffer that older releases of transformers saved along.
        prefix = how.prefix if prefixed else ""
        stored[f"{prefix}embeddings.position_ids"] = np.arange(POSITIONS)[None]
        _save(folder, stored, storage)
        if pooling is None:
            return folder

        types = _MODULE_TYPES[module_names]
        modules = [("", types["Transformer"]), ("1_Pooling", types["Pooling"])]
        _write_pooling(folder / "1_Pooling", pooling, include_prompt, module_names)
        width = WIDTH * len(pooling)
        for number, (out_features, activation) in enumerate(heads, 2):
            modules.append((f"{number}_Dense", types["Dense"]))
            _write_dense(folder / f"{number}_Dense", (out_features, width), activation, seed)
            width = out_features
        if normalize:
            modules.append((f"{len(modules)}_Normalize", types["Normalize"]))
        _write_json(
            folder / "modules.json",
            [
                {"idx": index, "name": str(index), "path": path, "type": kind}
                for index, (path, kind) in enumerate(modules)
            ],
        )
        _write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": max_seq_length, "do_lower_case": do_lower_case},
        )
        _write_json(
            folder / "config_sentence_transformers.json",
            {
                "__version__": {"sentence_transformers": "3.0.0"},
                "prompts": prompts or {},
                "default_prompt_name": default_prompt_name,
                "similarity_fn_name": similarity_fn_name,
            },
        )
        return folder


@pytest.fixture(scope="session")
def make_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[[str], Tokenizer]
) -> MakeCheckpoint:
    """Writes tiny checkpoints; see `MakeCheckpoint.__call__`."""
    return MakeCheckpoint(tmp_path_factory.mktemp, tiny_tokenizer)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _write_pooling(
    folder: Path, modes: Sequence[str], include_prompt: bool, module_names: str
) -> None:
    folder.mkdir()
    settings: dict[str, object]
    if module_names == "new":
        settings = {
            "embedding_dimension": WIDTH,
            "pooling_mode": modes[0] if len(modes) == 1 else list(modes),
            "include_prompt": include_prompt,
        }
    else:
        settings = {"word_embedding_dimension": WIDTH, "include_prompt": include_prompt}
        settings |= {flag: mode in modes for mode, flag in _POOLING_FLAGS.items()}
    _write_json(folder / "config.json", settings)


def _write_dense(folder: Path, shape: tuple[int, int], activation: str, seed: int) -> None:
    folder.mkdir()
    module = "linear" if activation == "Identity" else "activation"
    _write_json(
        folder / "config.json",
        {
            "in_features": shape[1],
            "out_features": shape[0],
            "bias": True,
            "activation_function": f"torch.nn.modules.{module}.{activation}",
        },
    )
    maker = Maker(seed + 2)
    maker.linear("linear", *shape)
    save_file(maker.tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _save(folder: Path, tensors: Mapping[str, Array], storage: str) -> None:
    names = list(tensors)
    parts = [names]
    if storage.startswith("sharded"):
        parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    stem, suffix = ("pytorch_model", "bin") if "pickle" in storage else ("model", "safetensors")
    files: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        label = f"-{number:05}-of-{len(parts):05}" if len(parts) > 1 else ""
        file = folder / f"{stem}{label}.{suffix}"
        shard = {name: tensors[name] for name in part}
        if suffix == "bin":
            _save_pickle(shard, file)
        else:
            save_file(shard, file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file.name)
    if len(parts) > 1:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        _write_json(
            folder / f"{stem}.{suffix}.index.json",
            {"metadata": {"total_size": num_bytes}, "weight_map": files},
        )


def _save_pickle(tensors: Mapping[str, Array], file: Path) -> None:
    import torch

    def convert(array: Array) -> torch.Tensor:
        bits = array.view(np.int16) if array.dtype == ml_dtypes.bfloat16 else array
        # torch leaves the type of the argument open.
        tensor = torch.from_numpy(bits)  # pyright: ignore[reportUnknownMemberType]
        return tensor if bits is array else tensor.view(torch.bfloat16)

    torch.save({name: convert(array) for name, array in tensors.items()}, file)
