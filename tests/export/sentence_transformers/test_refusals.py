"""Modules and settings that would change vectors and are not computed: refused by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.modules import read_modules
from embed_export.sentence_transformers import read_sentence_transformers

Write = Callable[[Path, object], None]
Edit = Callable[..., None]
WriteModules = Callable[..., None]

OLD = "sentence_transformers.models"


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
def test_orders_we_do_not_compute_are_refused(
    tmp_path: Path, names: tuple[str, ...], write: Write, write_modules: WriteModules
) -> None:
    paths = ["" if "Transformer" in name else f"{index}_M" for index, name in enumerate(names)]
    for path in filter(None, paths):
        write(tmp_path / path / "config.json", {"word_embedding_dimension": 32})
    write_modules(
        tmp_path, *((f"{OLD}.{name}", path) for name, path in zip(names, paths, strict=True))
    )
    with pytest.raises(UnsupportedModelError, match="supported is the order Transformer; Pooling"):
        read_modules(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        f"{OLD}.WeightedLayerPooling",
        f"{OLD}.LayerNorm",
        "custom_st.Transformer",
        "pylate.models.Dense.Dense",
        "sentence_transformers_fork.models.Pooling",
        "Pooling",
    ],
)
def test_modules_we_do_not_know_are_named(
    tmp_path: Path, kind: str, write_modules: WriteModules
) -> None:
    write_modules(tmp_path, (f"{OLD}.Transformer", ""), (kind, "1_Module"))
    with pytest.raises(UnsupportedModelError) as caught:
        read_modules(tmp_path)
    assert f'"{kind}"' in str(caught.value)


@pytest.mark.parametrize("path", ["..", "../x", "1_Pooling/../..", "/etc", "a\\..\\b", "a\0b"])
def test_modules_outside_the_folder_are_refused(
    tmp_path: Path, path: str, write_modules: WriteModules
) -> None:
    write_modules(tmp_path, (f"{OLD}.Transformer", ""), (f"{OLD}.Pooling", path))
    with pytest.raises(ExportError, match=r"'path' is .* a folder inside the checkpoint"):
        read_modules(tmp_path)


def test_links_that_leave_the_folder_are_refused(
    tmp_path: Path, write_modules: WriteModules
) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    write_modules(folder, (f"{OLD}.Transformer", ""), (f"{OLD}.Pooling", "1_Pooling"))
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
    make_checkpoint: Callable[..., Path],
    file: str,
    changes: Mapping[str, object],
    message: str,
    write: Write,
    edit: Edit,
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
