"""All files of Sentence-Transformers together, held against Sentence-Transformers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embed_export.modules import Modules, SpladePooling
from embed_export.sentence_transformers import (
    TRANSFORMER_NAMES,
    SentenceTransformersFiles,
    read_sentence_transformers,
)
from embed_runtime.manifest import Dense, Pooling

Write = Callable[[Path, object], None]
Edit = Callable[..., None]
LoadModel = Callable[..., Any]
WriteModules = Callable[..., None]

OLD = "sentence_transformers.models"


def test_no_files_say_nothing(make_checkpoint: Callable[..., Path]) -> None:
    assert read_sentence_transformers(make_checkpoint("bert")) == SentenceTransformersFiles()


def test_explicit_nulls_are_absent(
    tmp_path: Path, write: Write, write_modules: WriteModules
) -> None:
    write_modules(tmp_path, (f"{OLD}.Transformer", ""), (f"{OLD}.Pooling", "1_Pooling"))
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
def test_the_whole_chain_is_read(
    make_checkpoint: Callable[..., Path], module_names: str, edit: Edit, load_model: LoadModel
) -> None:
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

    original = load_model(folder)
    assert original.max_seq_length == files.max_tokens
    assert original.prompts == files.prompts
    assert original.default_prompt_name == files.default_prompt
    assert original.similarity_fn_name == files.similarity
    assert original.truncate_dim == files.truncate_dimensions


def test_what_the_original_saves_again_reads_the_same(
    make_checkpoint: Callable[..., Path], tmp_path: Path, load_model: LoadModel
) -> None:
    folder = make_checkpoint(
        "bert", pooling=("cls",), heads=((16, "GELU"),), normalize=True, prompts={"query": "q: "}
    )
    load_model(folder).save(str(tmp_path), create_model_card=False)
    expected, found = read_sentence_transformers(folder), read_sentence_transformers(tmp_path)
    assert found.modules.pooling == expected.modules.pooling
    assert found.modules.heads[0].spec == expected.modules.heads[0].spec
    assert found.modules.normalize is True
    assert found.prompts["query"] == "q: "


def test_splade_is_recognized(tmp_path: Path, write: Write, write_modules: WriteModules) -> None:
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


def test_a_backbone_in_a_folder_of_its_own(
    tmp_path: Path, write: Write, write_modules: WriteModules
) -> None:
    write_modules(
        tmp_path,
        (f"{OLD}.Transformer", "0_Transformer"),
        (f"{OLD}.Dropout", "1_Dropout"),
        (f"{OLD}.Pooling", "2_Pooling"),
    )
    write(tmp_path / "2_Pooling/config.json", {"word_embedding_dimension": 32})
    write(tmp_path / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 9})
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 8})
    files = read_sentence_transformers(tmp_path)
    assert (files.modules.backbone_path, files.max_tokens) == ("0_Transformer", 9)


@pytest.mark.parametrize("name", TRANSFORMER_NAMES)
def test_historic_names_of_the_limit(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, {"max_seq_length": 200, "do_lower_case": True})
    files = read_sentence_transformers(tmp_path)
    assert files == SentenceTransformersFiles(max_tokens=200, lowercase=True)


def test_settings_that_change_no_vector_are_let_through(tmp_path: Path, write: Write) -> None:
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
