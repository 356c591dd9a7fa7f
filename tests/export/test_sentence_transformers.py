"""Sentence-Transformers files: every dialect, held against Sentence-Transformers itself."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.modules import Modules, SpladePooling, read_modules
from embed_export.sentence_transformers import (
    TRANSFORMER_NAMES,
    SentenceTransformersFiles,
    read_sentence_transformers,
)
from embed_runtime.manifest import Dense, Pooling

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON object; ... removes one."""
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) | changes
    write(path, {key: value for key, value in content.items() if value is not ...})


def write_modules(folder: Path, *modules: tuple[str, str]) -> None:
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (kind, path) in enumerate(modules)
    ]
    write(folder / "modules.json", entries)


def old(name: str) -> str:
    return f"sentence_transformers.models.{name}"


def load_original(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def load_original_pooling(folder: Path) -> Any:
    from sentence_transformers.sentence_transformer import modules

    original: Any = modules.Pooling
    return original.load(str(folder))


def test_no_files_say_nothing(make_checkpoint: Callable[..., Path]) -> None:
    assert read_sentence_transformers(make_checkpoint("bert")) == SentenceTransformersFiles()


@pytest.mark.parametrize("module_names", ["old", "new"])
@pytest.mark.parametrize(
    "modes", [*((mode,) for mode in MODES), ("lasttoken", "mean", "cls"), MODES]
)
def test_pooling_is_what_the_original_pools(
    make_checkpoint: Callable[..., Path], module_names: str, modes: tuple[str, ...]
) -> None:
    folder = make_checkpoint("bert", pooling=modes, module_names=module_names)
    original = load_original_pooling(folder / "1_Pooling").pooling_mode
    pooling = read_modules(folder).pooling
    assert pooling is not None
    assert set(pooling.modes) == set(modes)
    assert pooling.modes == ((original,) if isinstance(original, str) else original)


@pytest.mark.parametrize(
    "settings",
    [
        {"word_embedding_dimension": 32},
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False},
        {"word_embedding_dimension": 32, "pooling_mode": "max", "pooling_mode_cls_token": True},
        {"embedding_dimension": 32, "pooling_mode": ["max", "cls"], "include_prompt": False},
    ],
)
def test_pooling_defaults_are_the_originals(tmp_path: Path, settings: dict[str, object]) -> None:
    write_modules(tmp_path, (old("Transformer"), ""), (old("Pooling"), "1_Pooling"))
    write(tmp_path / "1_Pooling/config.json", settings)
    original = load_original_pooling(tmp_path / "1_Pooling")
    modules = read_modules(tmp_path)
    assert modules.pooling is not None
    mode = original.pooling_mode
    assert modules.pooling.modes == ((mode,) if isinstance(mode, str) else mode)
    assert modules.pooling.include_prompt == original.include_prompt
    assert modules.token_dimensions == original.embedding_dimension
    assert modules.normalize is False


def test_explicit_nulls_are_absent(tmp_path: Path) -> None:
    write_modules(tmp_path, (old("Transformer"), ""), (old("Pooling"), "1_Pooling"))
    write(
        tmp_path / "1_Pooling/config.json",
        {"word_embedding_dimension": None, "pooling_mode": None, "include_prompt": None},
    )
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": None})
    write(
        tmp_path / "config_sentence_transformers.json",
        {
            "prompts": {"query": "q: ", "document": None},
            "default_prompt_name": None,
            "similarity_fn_name": None,
            "truncate_dim": None,
            "model_type": None,
        },
    )
    assert read_sentence_transformers(tmp_path) == SentenceTransformersFiles(
        modules=Modules(pooling=Pooling(modes=("mean",)), normalize=False), prompts={"query": "q: "}
    )


@pytest.mark.parametrize("module_names", ["old", "new"])
def test_the_whole_chain_is_read(make_checkpoint: Callable[..., Path], module_names: str) -> None:
    folder = make_checkpoint(
        "bert",
        pooling=("mean", "cls"),
        heads=((48, "Tanh"), (16, "Identity")),
        normalize=True,
        prompts={"query": "q: ", "document": ""},
        default_prompt_name="query",
        similarity_fn_name="dot",
        max_seq_length=77,
        do_lower_case=True,
        module_names=module_names,
    )
    edit(folder / "config_sentence_transformers.json", truncate_dim=8)
    files = read_sentence_transformers(folder)
    assert files.modules.normalize is True
    assert files.modules.token_dimensions == 32
    assert files.modules.backbone_path == ""
    assert [head.spec for head in files.modules.heads] == [
        Dense(in_features=64, out_features=48, bias=True, activation="tanh"),
        Dense(in_features=48, out_features=16, bias=True, activation="identity"),
    ]
    assert (files.max_tokens, files.lowercase) == (77, True)
    assert (files.prompts, files.default_prompt) == ({"query": "q: ", "document": ""}, "query")
    assert (files.similarity, files.truncate_dimensions) == ("dot", 8)

    original = load_original(folder)
    assert original.max_seq_length == files.max_tokens
    assert original.prompts == files.prompts
    assert original.default_prompt_name == files.default_prompt
    assert original.similarity_fn_name == files.similarity
    assert original.truncate_dim == files.truncate_dimensions


def test_what_the_original_saves_again_reads_the_same(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_checkpoint(
        "bert", pooling=("cls",), heads=((16, "GELU"),), normalize=True, prompts={"query": "q: "}
    )
    load_original(folder).save(str(tmp_path), create_model_card=False)
    expected, found = read_sentence_transformers(folder), read_sentence_transformers(tmp_path)
    assert found.modules.pooling == expected.modules.pooling
    assert found.modules.heads[0].spec == expected.modules.heads[0].spec
    assert found.modules.normalize is True
    assert found.prompts["query"] == "q: "


@pytest.mark.parametrize("names", ["linear", "", "dense"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_weights_are_found_under_every_name(
    make_checkpoint: Callable[..., Path], names: str, bias: bool
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    file = folder / "2_Dense/model.safetensors"
    arrays = load_file(file)
    expected = arrays["linear.weight"], arrays["linear.bias"] if bias else None
    prefix = f"{names}." if names else ""
    save_file(
        {
            key.replace("linear.", prefix): array
            for key, array in arrays.items()
            if bias or "weight" in key
        },
        file,
    )
    edit(folder / "2_Dense/config.json", bias=bias)
    (head,) = read_modules(folder).heads
    weight, found = head.read()
    assert head.spec == Dense(in_features=32, out_features=16, bias=bias, activation="relu")
    np.testing.assert_array_equal(weight, expected[0])
    np.testing.assert_array_equal(found, expected[1])


def test_dense_weights_are_read_from_a_pickle(make_checkpoint: Callable[..., Path]) -> None:
    import torch

    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    file = folder / "2_Dense/model.safetensors"
    arrays = load_file(file)
    file.unlink()
    torch.save(
        {name: torch.tensor(array) for name, array in arrays.items()},
        file.with_name("pytorch_model.bin"),
    )
    weight, bias = read_modules(folder).heads[0].read()
    np.testing.assert_array_equal(weight, arrays["linear.weight"])
    np.testing.assert_array_equal(bias, arrays["linear.bias"])


def test_dense_weights_nobody_asked_for_are_refused(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    edit(folder / "2_Dense/config.json", bias=False)
    (head,) = read_modules(folder).heads
    with pytest.raises(ExportError, match=r"does not use: linear\.bias"):
        head.read()


def test_the_activation_defaults_to_the_originals(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),))
    edit(folder / "2_Dense/config.json", activation_function=...)
    assert read_modules(folder).heads[0].spec.activation == "tanh"
    original = load_original(folder)
    assert type(original[2].activation_function).__name__ == "Tanh"


def test_the_users_pooling_replaces_a_file_that_is_missing(
    make_checkpoint: Callable[..., Path],
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), normalize=True)
    (folder / "1_Pooling/config.json").rename(folder / "1_Pooling/1_Pooling_config.json")
    with pytest.raises(ExportError, match=r"1_Pooling/config\.json is missing"):
        read_modules(folder)
    chosen = Pooling(modes=("lasttoken",))
    assert read_modules(folder, pooling=chosen) == Modules(pooling=chosen, normalize=True)


def test_splade_is_recognized(tmp_path: Path) -> None:
    write_modules(
        tmp_path,
        ("sentence_transformers.sparse_encoder.models.MLMTransformer", ""),
        ("sentence_transformers.sparse_encoder.models.SpladePooling", "1_SpladePooling"),
    )
    write(tmp_path / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    write(tmp_path / "sentence_bert_config.json", {"transformer_task": "fill-mask"})
    write(
        tmp_path / "1_SpladePooling/config.json",
        {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
    )
    modules = read_sentence_transformers(tmp_path).modules
    assert modules == Modules(
        splade=SpladePooling(strategy="sum", double_log=True), normalize=False
    )


def test_a_backbone_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_modules(
        tmp_path,
        (old("Transformer"), "0_Transformer"),
        (old("Dropout"), "1_Dropout"),
        (old("Pooling"), "2_Pooling"),
    )
    write(tmp_path / "2_Pooling/config.json", {"word_embedding_dimension": 32})
    write(tmp_path / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 9})
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 8})
    files = read_sentence_transformers(tmp_path)
    assert (files.modules.backbone_path, files.max_tokens) == ("0_Transformer", 9)


@pytest.mark.parametrize("name", TRANSFORMER_NAMES)
def test_historic_names_of_the_limit(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, {"max_seq_length": 200, "do_lower_case": True})
    files = read_sentence_transformers(tmp_path)
    assert files == SentenceTransformersFiles(max_tokens=200, lowercase=True)


def test_settings_that_change_no_vector_are_let_through(tmp_path: Path) -> None:
    write(
        tmp_path / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward"}},
            "model_args": {"torch_dtype": "bfloat16", "attn_implementation": "sdpa"},
            "tokenizer_args": {"padding_side": "left"},
            "config_kwargs": {},
            "query_length": None,
        },
    )
    assert read_sentence_transformers(tmp_path) == SentenceTransformersFiles()


@pytest.mark.parametrize(
    "names",
    [
        ("Pooling",),
        ("Transformer", "Normalize", "Pooling"),
        ("Transformer", "Dense", "Pooling"),
        ("Transformer", "Pooling", "Normalize", "Dense"),
        ("Transformer", "Pooling", "Pooling"),
        ("Transformer", "Transformer", "Pooling"),
        ("MLMTransformer", "SpladePooling", "Normalize"),
    ],
)
def test_orders_we_do_not_compute_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    paths = ["" if "Transformer" in name else f"{index}_M" for index, name in enumerate(names)]
    for path in filter(None, paths):
        write(tmp_path / path / "config.json", {"word_embedding_dimension": 32})
    write_modules(tmp_path, *((old(name), path) for name, path in zip(names, paths, strict=True)))
    with pytest.raises(UnsupportedModelError, match="supported is the order Transformer; Pooling"):
        read_modules(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        old("WeightedLayerPooling"),
        old("LayerNorm"),
        "custom_st.Transformer",
        "pylate.models.Dense.Dense",
        "sentence_transformers_fork.models.Pooling",
        "Pooling",
    ],
)
def test_modules_we_do_not_know_are_named(tmp_path: Path, kind: str) -> None:
    write_modules(tmp_path, (old("Transformer"), ""), (kind, "1_Module"))
    with pytest.raises(UnsupportedModelError) as caught:
        read_modules(tmp_path)
    assert f'"{kind}"' in str(caught.value)


@pytest.mark.parametrize("path", ["..", "../x", "1_Pooling/../..", "/etc", "a\\..\\b", "a\0b"])
def test_modules_outside_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    write_modules(tmp_path, (old("Transformer"), ""), (old("Pooling"), path))
    with pytest.raises(ExportError, match=r"'path' is .* a folder inside the checkpoint"):
        read_modules(tmp_path)


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    write_modules(folder, (old("Transformer"), ""), (old("Pooling"), "1_Pooling"))
    with pytest.raises(ExportError, match="a folder inside the checkpoint"):
        read_modules(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "one or more of cls, max"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "one or more of cls, max"),
        ("1_Pooling/config.json", {"pooling_mode": 1}, "'pooling_mode' is 1; it must be a list"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": "yes"}, "must be true or false"),
        ("1_Pooling/config.json", {"pooling_mode_min_tokens": True}, "do not know: pooling_mode_m"),
        ("1_Pooling/config.json", {"include_prompt": 0}, "'include_prompt' is 0; it must be true"),
        ("2_Dense/config.json", {"in_features": 31}, "'in_features' is 31; it must be 32"),
        ("2_Dense/config.json", {"in_features": "32"}, "must be an integer"),
        ("2_Dense/config.json", {"out_features": None}, "'out_features' is missing"),
        ("2_Dense/config.json", {"activation_function": None}, "'activation_function' is missing"),
        ("2_Dense/config.json", {"activation_function": "my.Swish"}, "supported is one of torch"),
        ("2_Dense/config.json", {"use_residual": True}, "'use_residual' is true; supported is f"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "sentence_embedding"),
        ("2_Dense/config.json", {"gate": True}, "settings we do not know: gate"),
        ("3_Normalize/config.json", {"module_output_name": "x"}, "sentence_embedding"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "'max_seq_length' is 0; it must be 1"),
        ("sentence_bert_config.json", {"max_seq_length": 12.5}, "must be an integer"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "must be an integer"),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "must be true or false"),
        ("sentence_bert_config.json", {"query_length": 32}, "'query_length' is 32"),
        ("sentence_bert_config.json", {"transformer_task": "retrieval"}, "feature-extraction"),
        ("sentence_bert_config.json", {"module_output_name": "x"}, "token_embeddings"),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "supported is text with"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
            "supported is text with method_output_name last_hidden_state",
        ),
        ("sentence_bert_config.json", {"config_args": {"is_causal": False}}, "--hf-overrides"),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}, "must be an object"),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "must be a string"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "there are none"),
        (
            "config_sentence_transformers.json",
            {"similarity_fn_name": "angle"},
            "one of cosine, dot",
        ),
        ("config_sentence_transformers.json", {"truncate_dim": -1}, "must be 1 or more"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "SparseEncoder"),
    ],
)
def test_wrong_settings_name_file_and_key(
    make_checkpoint: Callable[..., Path], file: str, changes: Mapping[str, object], message: str
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), heads=((16, "ReLU"),), normalize=True)
    if not (folder / file).exists():
        write(folder / file, {})
    edit(folder / file, **changes)
    with pytest.raises(ExportError) as caught:
        read_sentence_transformers(folder)
    assert message in str(caught.value)
    assert str(caught.value).startswith(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '[{"type": 1}]', '["x"]', '[{"type": "a.B"}]', "["]
)
def test_a_damaged_modules_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(ExportError, match=r"^modules\.json"):
        read_modules(tmp_path)
