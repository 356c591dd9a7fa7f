"""Fixtures every area may use: bundles that need no model, and whole exports."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from embed_runtime.bundle import describe_file, fingerprint, write_manifest
from embed_runtime.engines import BuildSpec, BuiltEngine, get_backend
from embed_runtime.manifest import (
    CHAT_TEMPLATE_NAME,
    TOKENIZER_NAME,
    ChatTemplate,
    Dimensions,
    EngineEntry,
    Graph,
    Manifest,
    Model,
    Pooling,
    Positions,
    Sparse,
    TokenHead,
    TokenizerSpec,
)
from embed_runtime.types import FloatArray, Precision

MakeSparse = Callable[..., Path]

WORDS = """a the of to and in is it you that he was for on are with as his they be at one have
this from or had by hot but some what there we can out other were all your when up use word how
said an each she which do their time if will way about many then them would write like so these
her long make thing see him two has look more day could go come did my sound no most number who
over know water than call first people may down side been now find any new work part take get
place made live where after back little only round man year came show every good me give our
under name very through just form much great think say help low line before turn cause same mean
differ move right boy old too does tell sentence set three want air well also play small end put
home read hand port large spell add even land here must big high such follow act why ask men
query passage document search text vector model"""


@pytest.fixture(scope="session")
def dummy_tokenizer() -> Tokenizer:
    """A small real tokenizer: WordPiece over English words and single characters."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [chr(code) for code in range(33, 127)] + ["é", "ß", "你", "好"]
    pieces = [*specials, *characters, *(f"##{one}" for one in characters), *WORDS.split()]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    # The stub of this method has a list of nothing in particular.
    tokenizer.add_special_tokens(specials)  # pyright: ignore[reportUnknownMemberType]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer


@pytest.fixture(scope="session")
def seal() -> Callable[[Manifest], Manifest]:
    """Gives every engine of a manifest the fingerprint that fits the rest of it."""

    def seal(manifest: Manifest) -> Manifest:
        engines = tuple(
            msgspec.structs.replace(
                entry, fingerprint=fingerprint(entry, graphs=manifest.graphs, files=manifest.files)
            )
            for entry in manifest.engines
        )
        return msgspec.structs.replace(manifest, engines=engines)

    return seal


@pytest.fixture
def dummy_bundle(
    tmp_path: Path, dummy_tokenizer: Tokenizer, seal: Callable[[Manifest], Manifest]
) -> Callable[..., Path]:
    """Write a complete bundle for the `dummy` engine and return its folder.

    `dummy_bundle()` has 32 dimensions (any smaller size allowed), prompts `query` and `document`
    and 64 tokens at most; keyword arguments replace fields of the manifest, `name` the folder.
    `template` becomes its chat template, with `[CLS]` and `[SEP]` as `bos_token` and `eos_token`.
    """

    def write(name: str = "dummy", template: str | None = None, **fields: Any) -> Path:
        folder = tmp_path / name
        (folder / "graphs").mkdir(parents=True)
        dummy_tokenizer.save(str(folder / TOKENIZER_NAME))
        graph = "graphs/packed.onnx"
        (folder / graph).write_bytes(b"the dummy engine needs no graph")
        names = [TOKENIZER_NAME, graph]
        if template is not None:
            (folder / CHAT_TEMPLATE_NAME).write_text(template)
            names.append(CHAT_TEMPLATE_NAME)
            special_tokens = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
            fields["chat_template"] = ChatTemplate(
                file=CHAT_TEMPLATE_NAME, special_tokens=special_tokens
            )
        files = {one: describe_file(folder / one) for one in names}
        graphs = (Graph(dialect="packed", files=(graph,), opset=20),)
        entry = EngineEntry(
            backend="dummy",
            file=graph,
            files=(graph,),
            dialect="packed",
            precision="fp32",
            device="cpu",
            producer="dummy 1",
            certified=True,
            fingerprint="",
        )
        manifest = Manifest(
            schema_version=1,
            model=Model(id=f"tests/{name}", architecture="DummyModel", model_type="dummy"),
            precision="fp32",
            pooling=Pooling(modes=("mean",)),
            normalize=True,
            dimensions=Dimensions(native=32, matryoshka=()),
            max_tokens=64,
            hidden_size=32,
            num_layers=2,
            prompts={"query": "query: ", "document": "document: "},
            tokenizer=TokenizerSpec(
                vocab_size=dummy_tokenizer.get_vocab_size(), pad_token_id=0, num_special_tokens=2
            ),
            positions=Positions(),
            outputs=("embedding", "pooled", "token_embeddings"),
            graphs=graphs,
            engines=(entry,),
            versions={"embed-runtime": "0.1.0"},
            files=files,
        )
        write_manifest(folder, msgspec.structs.replace(seal(manifest), **fields))
        return folder

    return write


@pytest.fixture
def sparse_bundle(dummy_bundle: Callable[..., Path], dummy_tokenizer: Tokenizer) -> MakeSparse:
    """Write a bundle for the `dummy` engine that offers `sparse`, and return its folder.

    `sparse_bundle("splade")` weighs the whole vocabulary; `sparse_bundle("token_weights")` weighs
    a text's own tokens, and has a head of 8 dimensions for `token_embed`, as bge-m3 does.
    """
    vocab_size = dummy_tokenizer.get_vocab_size()

    def write(kind: str, **fields: Any) -> Path:
        if kind == "splade":
            kept: dict[str, Any] = {
                "normalize": False,
                "similarity": "dot",
                "pooling": Pooling(modes=()),
                "dimensions": Dimensions(native=vocab_size),
                "sparse": Sparse(output="embedding", pooling="max"),
            }
        else:
            outputs = ("embedding", "pooled", "token_embeddings", "token_weights")
            kept = {
                "outputs": outputs,
                "sparse": Sparse(output="token_weights", skipped_ids=(0, 1, 2, 3)),
                "token_head": TokenHead(dimensions=8, normalize=True, num_dropped=1),
            }
        return dummy_bundle(kind, **(kept | fields))

    return write


@pytest.fixture(scope="session")
def load_model() -> Callable[..., Any]:
    """Loads a checkpoint with Sentence-Transformers; keywords are that class's."""

    def load_model(checkpoint: Path, **options: Any) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True, **options)

    return load_model


@pytest.fixture(scope="session")
def load_original(
    load_model: Callable[..., Any],
) -> Callable[[Path], Callable[..., FloatArray]]:
    """Loads a checkpoint with Sentence-Transformers; gives its `encode`."""

    def load_original(checkpoint: Path) -> Callable[..., FloatArray]:
        encode: Callable[..., FloatArray] = load_model(checkpoint).encode
        return encode

    return load_original


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a checkpoint for ONNX Runtime and returns the bundle; keywords are the config's."""
    from embed_export.config import ExportConfig
    from embed_export.export import export_bundle

    def export(checkpoint: Path, **options: Any) -> Path:
        output = tmp_path_factory.mktemp("bundles") / "bundle"
        options = {"engines": ("onnxruntime",), **options}
        bundle, certificate = export_bundle(
            ExportConfig(model=str(checkpoint), output=output, **options)
        )
        assert all(engine.passed for engine in certificate.engines)
        return bundle

    return export


@pytest.fixture(scope="module")
def short_timing() -> Iterator[None]:
    """Times engines on a few texts only: the figure is there, and no test depends on it."""
    from embed_export import measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_PASS_SECONDS", 0.01)
        patch.setattr(measure, "_MAX_SPEED_TEXTS", 4)
        yield


@pytest.fixture(scope="session")
def build_with_rtx() -> Callable[..., BuiltEngine]:
    """Builds the graph that TensorRT-RTX takes of a source; skips where it cannot be built."""
    from embed_export.build import build_engine
    from embed_export.source import Source

    def build_with_rtx(folder: Path, source: Source, precision: Precision) -> BuiltEngine:
        backend = get_backend("tensorrt_rtx")
        if not backend.probe().can_build:
            pytest.skip(f"needs TensorRT-RTX: {backend.probe().reason}")
        dialect = backend.dialect(precision)
        return build_engine(
            "tensorrt_rtx",
            BuildSpec(
                folder=folder,
                graph=f"graphs/{dialect}.onnx",
                dialect=dialect,
                precision=precision,
                max_tokens=source.spec.max_tokens,
                num_layers=source.spec.shape.num_layers,
            ),
        )

    return build_with_rtx


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs an export that must be refused; gives the one line that says why.

    `refused(checkpoint, "--fp16")`: exit code 2, nothing else on stderr, nothing written, no file
    of the checkpoint run.
    """
    from embed_export import source
    from embed_export.cli import main

    def prove_nothing(*_: object) -> None:
        """Save the time: this takes longer than all the rest, and has tests elsewhere."""

    monkeypatch.setattr(source, "prove_tokenizer", prove_nothing)

    def refused(checkpoint: Path, *flags: str) -> str:
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        witness = tmp_path / "code-of-the-repository-ran"
        for name in ("modeling", "configuration", "custom_st", "tokenization"):
            code = f"open({str(witness)!r}, 'w').close()\n"
            (checkpoint / f"{name}.py").write_text(code, encoding="utf-8")
        capsys.readouterr()
        output = ("-o", str(place / "bundle"), "--engine", "onnxruntime")
        assert main([str(checkpoint), *output, *flags]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert not [*place.iterdir()]
        assert not witness.exists()
        return lines[0]

    return refused


@pytest.fixture(params=["missing", "renamed", "misshapen", "integers", "float64", "infinite"])
def damage(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Damages one matrix of a checkpoint; gives what of its name every error must say."""
    numpy_files: Any = import_module("safetensors.numpy")  # its types are loose

    def damage(checkpoint: Path) -> str:
        file = checkpoint / "model.safetensors"
        tensors = numpy_files.load_file(file)
        name: str = next(
            one for one in sorted(tensors) if "layer" in one and tensors[one].ndim == 2
        )
        tensor = tensors.pop(name)
        match request.param:
            case "renamed":
                tensors[f"{name}_v2"] = tensor
            case "misshapen":
                tensors[name] = np.vstack([tensor, tensor])
            case "integers":
                tensors[name] = tensor.astype(np.int32)
            case "float64":
                tensors[name] = tensor.astype(np.float64)
            case "infinite":
                tensors[name] = np.full_like(tensor, np.inf)
            case _:
                pass
        numpy_files.save_file(tensors, file, metadata={"format": "pt"})
        return name[name.index("layer") :]

    return damage


@pytest.fixture(params=["more layers", "fewer layers", "width", "inner width", "vocabulary"])
def contradiction(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Has config.json say another size than the weights have."""
    keys, change = {
        "more layers": (("num_hidden_layers", "n_layers", "n_layer"), 1),
        "fewer layers": (("num_hidden_layers", "n_layers", "n_layer"), -1),
        "width": (("hidden_size", "dim", "n_embd"), 32),
        "inner width": (("intermediate_size", "hidden_dim", "n_inner"), 8),
        "vocabulary": (("vocab_size",), 8),
    }[request.param]

    def contradict(checkpoint: Path) -> None:
        path = checkpoint / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        key = next(one for one in keys if one in config)
        config[key] += change
        path.write_text(json.dumps(config), encoding="utf-8")

    return contradict
