"""Chat templates on their way into a bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embed_export.checkpoint import open_checkpoint
from embed_export.cli import main
from embed_export.errors import ExportError
from embed_export.tokenizer import resolve_tokenizer
from embed_runtime.bundle import read_manifest, verify_files
from embed_runtime.manifest import CHAT_TEMPLATE_NAME, MAX_CHAT_TEMPLATE_BYTES

MakeCheckpoint = Callable[..., Path]
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}é"


def set_template(checkpoint: Path, template: Any) -> None:
    path = checkpoint / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"chat_template": template}))


def put_file(checkpoint: Path) -> None:
    set_template(checkpoint, "an older one")
    (checkpoint / CHAT_TEMPLATE_NAME).write_text(TEMPLATE, encoding="utf-8")


def put_setting(checkpoint: Path) -> None:
    set_template(checkpoint, TEMPLATE)


def put_several(checkpoint: Path) -> None:
    others = {"name": "tool_use", "template": "another one"}
    set_template(checkpoint, [others, {"name": "default", "template": TEMPLATE}])


@pytest.mark.parametrize("put", [put_file, put_setting, put_several])
def test_the_template_is_found_wherever_transformers_finds_it(
    make_checkpoint: MakeCheckpoint, put: Callable[[Path], None]
) -> None:
    checkpoint = make_checkpoint("bert")
    put(checkpoint)
    resolved = resolve_tokenizer(open_checkpoint(str(checkpoint)))
    assert resolved.chat_template == TEMPLATE
    assert resolved.special_tokens["cls_token"] == "[CLS]"


def test_a_huge_template_is_refused(make_checkpoint: MakeCheckpoint) -> None:
    checkpoint = make_checkpoint("bert")
    set_template(checkpoint, "x" * (MAX_CHAT_TEMPLATE_BYTES + 1))
    with pytest.raises(ExportError, match=r"chat template .* larger than 1048576 bytes"):
        resolve_tokenizer(open_checkpoint(str(checkpoint)))


@pytest.mark.usefixtures("short_timing")
def test_an_export_stores_it(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint, bundle = make_checkpoint("bert"), tmp_path / "out"
    set_template(checkpoint, TEMPLATE)
    assert main([str(checkpoint), "-o", str(bundle), "--engine", "onnxruntime"]) == 0
    manifest = read_manifest(bundle)
    assert manifest.chat_template is not None
    verify_files(bundle, manifest, [manifest.chat_template.file])
    assert (bundle / manifest.chat_template.file).read_text(encoding="utf-8") == TEMPLATE
    assert manifest.chat_template.special_tokens["sep_token"] == "[SEP]"
