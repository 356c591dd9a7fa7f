"""Opening checkpoints: folders and hub ids, overrides, and what the model's own files say."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from embed_export.bundle import default_output
from embed_export.checkpoint import open_checkpoint
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.hub import cached_model
from embed_runtime.manifest import Pooling

FAMILIES = ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefixed", [False, True])
def test_tiny_checkpoints_load_where_the_published_ones_do(
    make_checkpoint: Callable[..., Path], family: str, prefixed: bool
) -> None:
    import transformers

    automatic: Any = transformers.AutoModel
    _, loading = automatic.from_pretrained(
        make_checkpoint(family, prefixed=prefixed), output_loading_info=True
    )
    missing = {name for name in loading["missing_keys"] if not name.startswith("pooler.")}
    heads = ("cls.", "lm_head.", "vocab_", "embeddings.position_ids")
    assert not missing
    assert not loading["mismatched_keys"]
    assert all(name.startswith(heads) for name in loading["unexpected_keys"])


def test_a_folder_is_described(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), prompts={"query": "q: "})
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.id == folder.name
    assert (checkpoint.folder, checkpoint.model_folder) == (folder, folder)
    assert (checkpoint.revision, checkpoint.license) == (None, None)
    assert (checkpoint.model_type, checkpoint.architecture) == ("bert", "BertModel")
    assert checkpoint.config.require("hidden_size", int) == 32
    assert checkpoint.weights.has("embeddings.word_embeddings.weight")
    assert checkpoint.sentence_transformers.modules.pooling == Pooling(modes=("mean",))
    assert checkpoint.prompts == {"query": "q: "}
    assert checkpoint.matryoshka is None


def test_the_users_pooling_replaces_the_files(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",))
    chosen = Pooling(modes=("max", "cls"))
    checkpoint = open_checkpoint(str(folder), pooling=chosen)
    assert checkpoint.sentence_transformers.modules.pooling == chosen


def test_a_backbone_in_a_folder_of_its_own(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",))
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = inner.name
    (folder / "modules.json").write_text(json.dumps(modules))
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.folder, checkpoint.model_folder) == (folder, inner)
    assert checkpoint.id == folder.name


def test_a_model_without_architectures_is_named_by_its_type(
    make_checkpoint: Callable[..., Path],
) -> None:
    folder = make_checkpoint("bert", config={"architectures": None})
    assert open_checkpoint(str(folder)).architecture == "bert"


def test_overrides_replace_values_and_merge_nested_configs(
    make_checkpoint: Callable[..., Path],
) -> None:
    folder = make_checkpoint(
        "bert",
        config={
            "rope_scaling": {"type": "ntk", "factor": 8},
            "text_config": {"hidden_size": 32, "vision_config": {"depth": 2, "width": 3}},
        },
    )
    overrides = {
        "architectures": ["OtherModel"],
        "model_type": "other",
        "hidden_act": None,
        "new_key": [1],
        "rope_scaling": {"factor": 2},
        "text_config": {"layers": 4, "vision_config": {"depth": 5}},
        "audio_config": {"rate": 1},
    }
    checkpoint = open_checkpoint(str(folder), hf_overrides=overrides)
    config = checkpoint.config
    assert (checkpoint.model_type, checkpoint.architecture) == ("other", "OtherModel")
    assert config.find("hidden_act", str) is None
    assert config["new_key"] == [1]
    assert config["rope_scaling"] == {"factor": 2}
    assert config["text_config"] == {
        "hidden_size": 32,
        "layers": 4,
        "vision_config": {"depth": 5, "width": 3},
    }
    assert config["audio_config"] == {"rate": 1}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"is_matryoshka": True}, ()),
        ({"is_matryoshka": False}, None),
        ({"is_matryoshka": None, "matryoshka_dimensions": None}, None),
        ({"matryoshka_dimensions": [16, 8, 8]}, (8, 16)),
        ({"is_matryoshka": True, "matryoshka_dimensions": [8]}, (8,)),
    ],
)
def test_matryoshka_sizes(
    make_checkpoint: Callable[..., Path],
    config: Mapping[str, object],
    expected: tuple[int, ...] | None,
) -> None:
    assert open_checkpoint(str(make_checkpoint("bert", config=config))).matryoshka == expected
    overridden = open_checkpoint(str(make_checkpoint("bert")), hf_overrides=config)
    assert overridden.matryoshka == expected


@pytest.mark.parametrize("sizes", [[0], [8, -1], ["8"], 8, [8.0], [True]])
def test_wrong_matryoshka_sizes_are_refused(
    make_checkpoint: Callable[..., Path], sizes: object
) -> None:
    folder = make_checkpoint("bert", config={"matryoshka_dimensions": sizes})
    with pytest.raises(ExportError, match=r"config\.json: 'matryoshka_dimensions' is"):
        open_checkpoint(str(folder))


def test_task_instructions_come_before_prompts(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(
        "bert",
        pooling=("mean",),
        prompts={"query": "from the files"},
        config={"task_instructions": {"query": "from the config", "none": ""}},
    )
    assert open_checkpoint(str(folder)).prompts == {"query": "from the config", "none": ""}
    emptied = open_checkpoint(str(folder), hf_overrides={"task_instructions": {}})
    assert emptied.prompts == {"query": "from the files"}


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\ntags:\n- x\n---\n# Title", "apache-2.0"),
        ("---\r\nlicense: 'mit'  # comment\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: gemma\nlicense_link: x\n---\n", "gemma"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense:\n- mit\n---\n", None),
        ("# Title\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_is_read_from_the_model_card(
    make_checkpoint: Callable[..., Path], card: str, expected: str | None
) -> None:
    folder = make_checkpoint("bert")
    (folder / "README.md").write_bytes(card.encode())
    assert open_checkpoint(str(folder)).license == expected


class Hub:
    """Stands in for the hub: hands out a folder, or raises."""

    def __init__(self, outcome: Path | Exception) -> None:
        self.outcome = outcome
        self.calls: list[tuple[str, str | None, list[str]]] = []

    def __call__(
        self,
        repo_id: str,
        *,
        revision: str | None,
        allow_patterns: list[str],
        ignore_patterns: list[str],
    ) -> str:
        assert "onnx/*" in ignore_patterns
        self.calls.append((repo_id, revision, allow_patterns))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return str(self.outcome)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | Exception], Hub]:
    def hub(outcome: Path | Exception) -> Hub:
        one = Hub(outcome)
        monkeypatch.setattr("huggingface_hub.snapshot_download", one)
        return one

    return hub


def cached(folder: Path, root: Path) -> Path:
    """Move a checkpoint to where the hub's cache would have it."""
    snapshot = root / "models--maker--model/snapshots" / ("0123456789" * 4)
    snapshot.parent.mkdir(parents=True)
    return folder.rename(snapshot)


def test_a_hub_id_is_fetched_and_pinned(
    make_checkpoint: Callable[..., Path], hub: Callable[..., Hub], tmp_path: Path
) -> None:
    snapshot = cached(make_checkpoint("bert"), tmp_path)
    fetched = hub(snapshot)
    checkpoint = open_checkpoint("maker/model", revision="main")
    assert (checkpoint.id, checkpoint.revision) == ("maker/model", "0123456789" * 4)
    assert checkpoint.folder == snapshot
    ((repo_id, revision, patterns),) = fetched.calls
    assert (repo_id, revision) == ("maker/model", "main")
    assert "model*.safetensors" in patterns
    assert "*.py" not in patterns
    assert "pytorch_model*.bin" not in patterns


def test_pickles_are_fetched_only_when_needed(
    make_checkpoint: Callable[..., Path], hub: Callable[..., Hub]
) -> None:
    fetched = hub(make_checkpoint("bert", storage="pickle"))
    open_checkpoint("maker/model")
    first, second = fetched.calls
    assert "*.py" not in first[2]
    assert second[2] == ["pytorch_model*.bin"]


def test_a_folder_in_the_hubs_cache_knows_its_model_and_commit(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    snapshot = cached(make_checkpoint("bert"), tmp_path)
    checkpoint = open_checkpoint(str(snapshot))
    assert (checkpoint.id, checkpoint.revision) == ("maker/model", "0123456789" * 4)
    assert default_output(str(snapshot)) == Path("engines/model")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("models--maker--a--model", "maker/a--model"),
        ("models--model", "model"),
        ("models--", None),
        ("datasets--maker--model", None),
    ],
)
def test_what_the_hubs_cache_calls_a_model(tmp_path: Path, folder: str, name: str | None) -> None:
    commit = "0123456789" * 4
    expected = (name, commit) if name else None
    assert cached_model(tmp_path / folder / "snapshots" / commit) == expected


def test_what_the_hub_says_becomes_one_line(hub: Callable[..., Hub]) -> None:
    hub(ConnectionError("no route\n\nto the   hub"))
    with pytest.raises(ExportError) as caught:
        open_checkpoint("maker/model")
    assert str(caught.value) == (
        "'maker/model' is no folder here and could not be fetched from the hub: no route to the hub"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GatedRepoError", "maker/model is gated: accept its terms"),
        ("RepositoryNotFoundError", "'maker/model' is no folder here and no model on the hub"),
        ("RevisionNotFoundError", "maker/model has no revision 'v9'"),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(
    hub: Callable[..., Hub], name: str, message: str
) -> None:
    import httpx
    import huggingface_hub.errors

    response = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))
    error: type[Exception] = getattr(huggingface_hub.errors, name)
    hub(error("long\nstory", response=response))  # type: ignore[call-arg]
    with pytest.raises(ExportError) as caught:
        open_checkpoint("maker/model", revision="v9")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_quantized_checkpoint_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", config={"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(UnsupportedModelError, match=r"'quantization_config' is .*gptq"):
        open_checkpoint(str(folder))


def test_a_revision_of_a_folder_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert")
    with pytest.raises(ExportError, match="which has no revisions"):
        open_checkpoint(str(folder), revision="main")
