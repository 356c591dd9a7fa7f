"""A bundle of the dummy engine with MiniLM's tokenizer: everything of a server but the model."""

import shutil
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from benchmarks.checkpoints import CACHE, minilm_checkpoint
from embed_runtime.bundle import describe_file, fingerprint, write_manifest
from embed_runtime.manifest import (
    SCHEMA_VERSION,
    TOKENIZER_NAME,
    Dimensions,
    EngineEntry,
    Graph,
    Manifest,
    Model,
    Pooling,
    Positions,
    TokenizerSpec,
)

_GRAPH_NAME = "graphs/packed.onnx"
_SIZE = 384


def write_dummy_bundle() -> Path:
    """Write it anew and return its folder."""
    folder = CACHE / "bundles" / "dummy"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "graphs").mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(minilm_checkpoint() / TOKENIZER_NAME))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / TOKENIZER_NAME))
    (folder / _GRAPH_NAME).write_bytes(b"the dummy engine needs no graph")
    files = {name: describe_file(folder / name) for name in (TOKENIZER_NAME, _GRAPH_NAME)}
    graphs = (Graph(dialect="packed", files=(_GRAPH_NAME,), opset=20),)
    entry = EngineEntry(
        backend="dummy",
        file=_GRAPH_NAME,
        files=(_GRAPH_NAME,),
        dialect="packed",
        precision="fp32",
        device="cpu",
        producer="dummy 1",
        certified=True,
        fingerprint="",
    )
    entry = msgspec.structs.replace(
        entry, fingerprint=fingerprint(entry, graphs=graphs, files=files)
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model=Model(id="dummy", architecture="DummyModel", model_type="dummy"),
        precision="fp32",
        pooling=Pooling(modes=("mean",)),
        normalize=True,
        dimensions=Dimensions(native=_SIZE),
        max_tokens=256,
        hidden_size=_SIZE,
        num_layers=6,
        tokenizer=TokenizerSpec(vocab_size=tokenizer.get_vocab_size(), pad_token_id=0),
        positions=Positions(),
        outputs=("embedding", "pooled", "token_embeddings"),
        graphs=graphs,
        engines=(entry,),
        versions={},
        files=files,
    )
    write_manifest(folder, manifest)
    return folder
