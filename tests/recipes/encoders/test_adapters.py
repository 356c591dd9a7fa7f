"""Jina Embeddings v3: all adapters in one graph, one merged, none; against each merged weight."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from embed_export.config import ExportConfig
from embed_export.errors import ExportError
from embed_export.export import export_bundle
from embed_export.probe import read_reference
from embed_export.source import Source
from embed_runtime import EmbedRequest, Runtime
from embed_runtime.manifest import Dialect

# Its types are loose.
torch: Any = import_module("torch")

Array = npt.NDArray[Any]
Settings = dict[str, Any]
# Fixtures of conftest.py.
Make = Callable[..., Any]
Check = Callable[[Source, Any], None]
RunGraphs = Callable[..., Mapping[Dialect, Array]]
RandomRows = Callable[..., list[list[int]]]
Cosine = Callable[[Array, Array], float]

HIDDEN, POSITIONS = 32, 256


def test_a_graph_holds_all_adapters(
    make: Make, run_graphs: RunGraphs, random_rows: RandomRows, cosine: Cosine
) -> None:
    instructions = {"retrieval.query": "Represent the query: "}
    tiny = make("jina-embeddings-v3", task_instructions=instructions)
    source = tiny.source()
    tasks = tiny.config["lora_adaptations"]
    originals = [tiny.original(merge_adapter(tiny, task)) for task in (*tasks, None)]
    rows = random_rows([9, 40, 3, 17, 17, 1, 9])
    adapters = [1, -1, 0, 2, 2, -1, 0]
    expected = np.concatenate([originals[a](row) for a, row in zip(adapters, rows, strict=True)])
    for tokens in run_graphs(source, rows, adapters=adapters).values():
        assert cosine(tokens, expected) >= 0.99999
        assert np.abs(tokens - expected).max() < 1e-4 * np.abs(expected).max()
    assert source.spec.adapters == tuple(tasks)
    assert source.spec.prompts == {**dict.fromkeys(tasks, ""), **instructions}
    assert source.spec.default_prompt is None


def test_tasks_are_proven_and_served_side_by_side(
    make: Make, tmp_path: Path, fast_exports: None, cosine: Cosine
) -> None:
    tiny = make("jina-embeddings-v3", task_instructions={"separation": "divide: "})
    modules: list[Settings] = [
        {"type": "custom_st.Transformer", "path": "", "kwargs": ["task"]},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]
    (tiny.folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tiny.folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (tiny.folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (tiny.folder / "custom_st.py").write_text("raise SystemExit('code of the repository ran')")
    engines = ("onnxruntime", "openvino")
    config = ExportConfig(model=str(tiny.folder), output=tmp_path / "bundle", engines=engines)
    bundle, certificate = export_bundle(config)
    tasks = tiny.config["lora_adaptations"]
    stored = read_reference(bundle)
    assert {*stored.tasks} == {None, *tasks}
    for proof in certificate.engines:
        assert proof.figures
        assert proof.figures.num_texts == len(stored.tasks)
    texts = ["a", "the quick brown fox", "retrieval needs vectors " * 9]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    with Runtime(bundle) as runtime:
        requests = [EmbedRequest(inputs=texts, prompt_name=task) for task in (None, *tasks)]
        results = [job.result() for job in [runtime.submit(request) for request in requests]]
    for request, result in zip(requests, results, strict=True):
        task = request.prompt_name
        prompt = "divide: " if task == "separation" else ""
        original = tiny.original(merge_adapter(tiny, task))
        for text, vector in zip(texts, result.vectors, strict=True):
            expected = original(tokenizer.encode(prompt + text).ids).mean(axis=0)
            assert cosine(vector[None], expected[None]) > 0.99999


def test_a_model_whose_adapters_are_merged_already(
    make: Make, run_graphs: RunGraphs, check: Check, random_rows: RandomRows
) -> None:
    tiny = make("jina-embeddings-v3")
    merged = merge_adapter(tiny, "separation")
    tensors = {f"roberta.{name}": tensor.numpy() for name, tensor in merged.items()}
    save_file(tensors, tiny.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="lora_adaptations"):
        run_graphs(tiny.source(), random_rows([3]))
    source = tiny.source(hf_overrides={"lora_adaptations": None})
    assert source.spec.adapters == ()
    shutil.rmtree(tiny.folder.with_name("bundle"))
    check(source, tiny.original(merged))


@pytest.mark.parametrize("task", ["retrieval.query", "text-matching"])
def test_an_adapter_is_merged(make: Make, check: Check, task: str) -> None:
    tiny = make("jina-embeddings-v3")
    source = tiny.source(task_adapter=task)
    state = merge_adapter(tiny, task)
    original = tiny.original(state)
    check(source, original)
    assert source.spec.adapters == ()
    assert source.spec.default_prompt == task
    assert source.spec.prompts == {task: tiny.config["task_instructions"][task]}
    assert source.spec.max_tokens == POSITIONS
    assert source.spec.dimensions.matryoshka == (16, 32)


def test_an_adapter_the_model_lacks_is_refused(make: Make) -> None:
    tiny = make("jina-embeddings-v3")
    with pytest.raises(ExportError, match=r"retrieval\.query, separation, text-matching"):
        tiny.source(task_adapter="retrieval")
    with pytest.raises(ExportError, match="GteModel has no adapters"):
        make("gte").source(task_adapter="retrieval.query")


def merge_adapter(tiny: Any, task: str | None) -> dict[str, Any]:
    """Merge a task's adapter as the model's own code adds it: transposed for embeddings."""
    part = ".parametrizations.weight"
    state: dict[str, Any] = {}
    for name, tensor in tiny.tensors.items():
        plain = name.removeprefix("roberta.")
        if name.endswith(f"{part}.original"):
            stem = name.removesuffix(".original")
            if task is not None:
                index = tiny.config["lora_adaptations"].index(task)
                first, second = (tiny.tensors[f"{stem}.0.lora_{kind}"][index] for kind in "AB")
                change = first @ second if "embeddings" in name else second @ first
                scale = tiny.config["lora_alpha"] / tiny.config["lora_rank"]
                tensor = (tensor + scale * change).astype(np.float32)
            plain = plain.replace(f"{part}.original", ".weight")
        elif part in name:
            continue
        state[plain] = torch.from_numpy(tensor)
    return state
