"""Folders that hold no model, or one whose config.json is wrong; and code that never runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embed_export.checkpoint import open_checkpoint
from embed_export.tokenizer import resolve_tokenizer

Refusal = Callable[..., str]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 90868376\n"


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "../nothing", "a/b/c", "", "~x y"]
)
def test_no_such_folder(name: str, refusal: Refusal) -> None:
    assert refusal(name) == f"no such folder: {name!r}"


def test_a_file_instead_of_a_folder(checkpoint: Path, refusal: Refusal) -> None:
    file = checkpoint / "model.safetensors"
    assert refusal(file) == f"{file} is a file; name the folder it is in"


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (None, ""),
        ("manifest.json", "it is a bundle already: embed-serve takes it"),
        ("adapter_config.json", "it is a LoRA adapter: merge it into its base model first"),
    ],
)
def test_not_a_model(tmp_path: Path, file: str | None, hint: str, refusal: Refusal) -> None:
    if file:
        (tmp_path / file).write_text("{}", encoding="utf-8")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} is not a model: it has no config.json")
    assert message.endswith(hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is not JSON"),
        (b"{'model_type': 'bert'}", "config.json is not JSON"),
        (b'{"model_type": "bert"', "config.json is not JSON"),
        (b"\xff\xfe\x00", "config.json is not JSON"),
        (b"[" * 100_000, "config.json is not JSON"),
        (POINTER, "config.json is not JSON"),
        (b"[]", "config.json must hold a JSON object, not []"),
        (b'"bert"', 'config.json must hold a JSON object, not "bert"'),
        (b"null", "config.json must hold a JSON object, not null"),
        (b"{}", "config.json: 'model_type' is missing; it must be a string"),
        (b'{"model_type": null}', "config.json: 'model_type' is missing"),
        (b'{"model_type": ["bert"]}', "config.json: 'model_type' is [\"bert\"]; it must be a str"),
        (b'{"model_type": "bert", "architectures": "BertModel"}', "'architectures' is \"BertM"),
        (b'{"model_type": "bert", "architectures": [1]}', "each item a string"),
        (b'{"model_type": "bert", "task_instructions": {"a": 1}}', "config.json: task_instructi"),
        (b'{"model_type": "bert", "is_matryoshka": 1}', "'is_matryoshka' is 1; it must be true"),
        (b'{"model_type": "bert", "quantization_config": {"bits": 4}}', "supported is null"),
    ],
)
def test_a_wrong_config(checkpoint: Path, content: bytes, message: str, refusal: Refusal) -> None:
    (checkpoint / "config.json").write_bytes(content)
    assert message in refusal(checkpoint)


def test_code_in_the_repository_never_runs(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refusal: Refusal,
) -> None:
    witness = checkpoint / "it-ran"
    code = f"open({str(witness)!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n"
    (checkpoint / "modeling.py").write_text(code, encoding="utf-8")
    auto_map = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    config_file = checkpoint / "config.json"
    config = json.loads(config_file.read_bytes())
    config |= {"model_type": "never_heard_of", "auto_map": auto_map}
    config_file.write_text(json.dumps(config), encoding="utf-8")
    settings: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    def ask(prompt: object = "") -> str:
        raise AssertionError(f"asked {prompt!r}")

    monkeypatch.setattr("builtins.input", ask)
    opened = open_checkpoint(str(checkpoint))
    assert opened.model_type == "never_heard_of"
    assert resolve_tokenizer(opened).num_special_tokens == 2

    settings |= {"auto_map": {"AutoTokenizer": [None, "modeling.Model"]}}
    settings["tokenizer_class"] = "NeverHeardOf"
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "cannot be used" in refusal(checkpoint)
    assert not witness.exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_a_git_lfs_pointer(checkpoint: Path, name: str, refusal: Refusal) -> None:
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(POINTER)
    assert refusal(checkpoint) == (
        f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in {checkpoint}"
    )
