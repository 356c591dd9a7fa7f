"""The manifest: written and read back, refused when it lies, and the files it speaks of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_runtime import BundleError
from embed_runtime.bundle import (
    describe_file,
    fingerprint,
    locate_bundle,
    read_manifest,
    verify_files,
    write_manifest,
)
from embed_runtime.manifest import (
    Dense,
    Dialect,
    Dimensions,
    EngineEntry,
    File,
    Graph,
    Manifest,
    Model,
    Pooling,
    Positions,
    TokenizerSpec,
)

MakeBundle = Callable[..., Path]

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
HASH = st.text("0123456789abcdef", min_size=64, max_size=64)
DIALECTS: list[Dialect] = ["padded", "packed", "packed-fp16"]
NAME = st.from_regex(r"[a-z0-9_-]{1,8}(/[a-z0-9_-]{1,8}){0,2}\.bin", fullmatch=True)
SIZE = st.integers(1, 5000)
POOLING = st.builds(
    Pooling,
    modes=st.lists(
        st.sampled_from(["cls", "mean", "max", "lasttoken"]), min_size=1, max_size=3
    ).map(tuple),
    include_prompt=st.booleans(),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Make any manifest that does not contradict itself."""
    pooling, hidden_size = draw(POOLING), draw(SIZE)
    size = hidden_size * len(pooling.modes)
    heads: list[Dense] = []
    for out in draw(st.lists(SIZE, max_size=2)):
        heads.append(
            Dense(in_features=size, out_features=out, bias=draw(st.booleans()), activation="tanh")
        )
        size = out
    files = draw(st.dictionaries(NAME, _files(), min_size=1, max_size=5))
    files["tokenizer.json"] = draw(_files())
    prompts = draw(st.dictionaries(TEXT, TEXT, max_size=3))
    max_tokens = draw(SIZE)
    vocab_size = draw(SIZE)
    some = st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3, unique=True).map(tuple)
    return Manifest(
        schema_version=1,
        model=draw(st.builds(Model, id=TEXT, architecture=TEXT, model_type=TEXT)),
        precision=draw(st.sampled_from(["fp32", "fp16", "bf16", "int8"])),
        pooling=pooling,
        heads=tuple(heads),
        normalize=draw(st.booleans()),
        dimensions=Dimensions(
            native=size,
            matryoshka=draw(st.none() | st.lists(st.integers(1, size), max_size=3).map(tuple)),
            smallest=draw(st.integers(1, size)),
            center=draw(st.booleans()),
        ),
        max_tokens=max_tokens,
        hidden_size=hidden_size,
        num_layers=draw(SIZE),
        similarity=draw(st.sampled_from(["cosine", "dot", "euclidean", "manhattan"])),
        prompts=prompts,
        default_prompt=draw(st.none() | st.sampled_from(sorted(prompts)) if prompts else st.none()),
        adapters=tuple(draw(st.sets(st.sampled_from(sorted(prompts)))) if prompts else ()),
        tokenizer=TokenizerSpec(
            vocab_size=vocab_size,
            pad_token_id=draw(st.integers(0, vocab_size - 1)),
        ),
        positions=draw(st.builds(Positions, offset=st.integers(0, 9))),
        outputs=("embedding", "pooled"),
        graphs=tuple(
            Graph(dialect=dialect, files=draw(some), opset=20)
            for dialect in draw(st.sets(st.sampled_from(DIALECTS)))
        ),
        engines=tuple(draw(st.lists(_entries(some, max_tokens), max_size=2))),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        files=files,
    )


def _files() -> st.SearchStrategy[File]:
    return st.builds(File, num_bytes=st.integers(0, 2**50), sha256=HASH)


@st.composite
def _entries(
    draw: st.DrawFn, some: st.SearchStrategy[tuple[str, ...]], max_tokens: int
) -> EngineEntry:
    files = draw(some)
    return EngineEntry(
        backend=draw(TEXT.filter(str.isprintable)),
        file=files[-1],
        files=files,
        dialect="packed",
        precision="bf16",
        device=draw(st.sampled_from(["cpu", "cuda"])),
        producer=draw(TEXT.filter(str.isprintable)),
        targets=draw(st.lists(TEXT, max_size=2).map(tuple)),
        max_batch_tokens=draw(st.none() | st.integers(max_tokens, max_tokens + 9)),
        tokens_per_second=draw(st.none() | st.floats(0, 1e9)),
        certified=draw(st.booleans()),
        fingerprint=draw(HASH),
    )


@settings(max_examples=30, deadline=None)
@given(manifest=manifests())
def test_write_then_read_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def edit(folder: Path, path: str, value: Any) -> None:
    """Change one place of a manifest on disk, without asking whether it makes sense."""
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[last] = value
    file.write_text(json.dumps(content))


LIES: dict[str, list[tuple[Any, str]]] = {
    "dimensions.native": [(33, "native is 33 but pooling and heads give 32"), (-1, "-1"), (0, "0")],
    "dimensions.smallest": [(0, "smallest is 0"), (33, "smallest is 33")],
    "dimensions.matryoshka": [([16, 64], "matryoshka size 64"), ([0], "matryoshka size 0")],
    "hidden_size": [(16, "native is 32 but"), (-32, "-32"), (2**40, "outside")],
    "max_tokens": [(0, "max_tokens is 0"), (-5, "max_tokens is -5"), (10**30, "manifest")],
    "num_layers": [(0, "num_layers is 0")],
    "heads": [
        ([{"in_features": 9, "out_features": 32, "bias": True, "activation": "tanh"}], "takes 9"),
        ([{"in_features": 32, "out_features": 8, "bias": True, "activation": "tanh"}], "give 8"),
    ],
    "pooling.modes": [([], "no mode"), (["mean", "cls"], "give 64"), (["median"], "median")],
    "pooling.prompt_marks": [({"start": "a", "end": "b"}, "needs two texts, and include_prompt")],
    "default_prompt": [("title", "'title' is not among the prompts")],
    "chat_template": [({"file": "x.jinja"}, "chat template is the unknown file 'x.jinja'")],
    "adapters": [
        (["title"], "adapter 'title' is not among the prompts"),
        (["query", "query"], "several adapters 'query'"),
    ],
    "prompts": [({"query": 5}, "manifest"), ({"query": None}, "manifest")],
    "outputs": [([], "lack 'embedding'"), (["pooled"], "lack"), (["scores"], "scores")],
    "tokenizer.vocab_size": [(0, "vocab_size is 0")],
    "tokenizer.pad_token_id": [(-1, "-1"), (386, "pad_token_id 386 is outside the vocabulary")],
    "tokenizer.num_special_tokens": [(-2, "-2")],
    "schema_version": [(2, "schema version 2, this release reads 1"), ("1", "schema_version")],
    "surprise": [(1, "surprise")],
    "model.surprise": [(1, "surprise")],
    "normalize": [("yes", "normalize")],
    "precision": [("fp4", "fp4")],
    "graphs.0.files": [([], "has no file"), (["graphs/other.onnx"], "unknown file")],
    "engines.0.backend": [("a\nb", "no printable name")],
    "engines.0.producer": [("a\x1bb", "no printable name")],
    "engines.0.file": [("model.plan", "does not list its own file")],
    "engines.0.files": [(["graphs/packed.onnx", "model.plan"], "unknown file 'model.plan'")],
    "engines.0.max_batch_tokens": [(63, "takes 63 tokens in one batch, and one input may have 64")],
    "engines.0.fingerprint": [("", "no valid fingerprint"), ("Z" * 64, "no valid fingerprint")],
    "files": [
        ({}, "files lack tokenizer.json"),
        *(
            ({name: {"num_bytes": 1, "sha256": "0" * 64}}, "not a plain path")
            for name in (
                *("../x", "/etc/passwd", "a/../../x", "a//x", "./x", "", ".", "..", "a/"),
                *("a\\x", "C:x", "a\0x", "a\nx"),
            )
        ),
        ({"manifest.json": {"num_bytes": 1, "sha256": "0" * 64}}, "its own hash"),
        ({"tokenizer.json": {"num_bytes": -1, "sha256": "0" * 64}}, "-1 bytes"),
        ({"tokenizer.json": {"num_bytes": 1, "sha256": "0" * 63}}, "no valid SHA-256"),
        ({"tokenizer.json": {"num_bytes": 1, "sha256": "F" * 64}}, "no valid SHA-256"),
    ],
}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [(path, value, words) for path, cases in LIES.items() for value, words in cases],
)
def test_a_manifest_that_lies(dummy_bundle: MakeBundle, path: str, value: Any, words: str) -> None:
    folder = dummy_bundle()
    edit(folder, path, value)
    with pytest.raises(BundleError) as caught:
        read_manifest(folder)
    assert words in str(caught.value)
    assert str(folder / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"schema_version": 1}',
        b"\xff\xfe",
        b'{"schema_version": 1, "model": ' + b"[" * 100_000,
        b'{"schema_version": NaN}',
    ],
)
def test_not_a_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match="not a valid manifest"):
        read_manifest(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger than"):
        read_manifest(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read: No such file"):
        read_manifest(tmp_path)


def test_a_lie_is_not_written(dummy_bundle: MakeBundle) -> None:
    folder = dummy_bundle()
    manifest = read_manifest(folder)
    with pytest.raises(BundleError, match="default prompt"):
        write_manifest(folder, msgspec.structs.replace(manifest, default_prompt="title"))
    with pytest.raises(BundleError, match="several graphs 'packed'"):
        write_manifest(folder, msgspec.structs.replace(manifest, graphs=manifest.graphs * 2))
    with pytest.raises(BundleError, match="schema version 2"):
        write_manifest(folder, msgspec.structs.replace(manifest, schema_version=2))
    assert read_manifest(folder) == manifest


class TestFiles:
    def test_intact(self, dummy_bundle: MakeBundle) -> None:
        folder = dummy_bundle()
        manifest = read_manifest(folder)
        verify_files(folder, manifest, manifest.files)

    def test_unlisted(self, dummy_bundle: MakeBundle) -> None:
        folder = dummy_bundle()
        with pytest.raises(BundleError, match=r"lists no file 'manifest\.json'"):
            verify_files(folder, read_manifest(folder), ["manifest.json"])

    @pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove", "folder"])
    def test_damaged(self, dummy_bundle: MakeBundle, damage: str) -> None:
        folder = dummy_bundle()
        path = folder / "graphs/packed.onnx"
        content = bytearray(path.read_bytes())
        path.unlink()
        if damage == "flip":
            content[7] ^= 1
            path.write_bytes(content)
        elif damage == "cut":
            path.write_bytes(content[:-1])
        elif damage == "grow":
            path.write_bytes(content + b"0")
        elif damage == "folder":
            path.mkdir()
        with pytest.raises(BundleError, match=r"packed\.onnx: (not the file|cannot be read)"):
            verify_files(folder, read_manifest(folder), ["graphs/packed.onnx"])

    def test_describe(self, tmp_path: Path) -> None:
        (tmp_path / "abc").write_bytes(b"abc")
        # The first example of FIPS 180-2.
        assert describe_file(tmp_path / "abc") == File(
            num_bytes=3,
            sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )


class TestFingerprint:
    def test_changes_with_all_that_decides_the_vectors(self, dummy_bundle: MakeBundle) -> None:
        manifest = read_manifest(dummy_bundle())
        [entry] = manifest.engines
        other = File(num_bytes=1, sha256="0" * 64)

        def of(entry: EngineEntry, files: dict[str, File] = manifest.files) -> str:
            return fingerprint(entry, graphs=manifest.graphs, files=files)

        changed = [
            of(msgspec.structs.replace(entry, producer="dummy 2")),
            of(msgspec.structs.replace(entry, precision="bf16")),
            of(msgspec.structs.replace(entry, targets=("8.9",))),
            of(msgspec.structs.replace(entry, device="cuda")),
            of(msgspec.structs.replace(entry, backend="openvino")),
            of(entry, {**manifest.files, entry.file: other}),
        ]
        assert len({entry.fingerprint, *changed}) == 1 + len(changed)

    def test_stays_with_all_else(self, dummy_bundle: MakeBundle) -> None:
        manifest = read_manifest(dummy_bundle())
        [entry] = manifest.engines
        other = msgspec.structs.replace(
            entry, certified=False, tokens_per_second=9.0, fingerprint="", num_fused_attention=2
        )
        files = {**manifest.files, "tokenizer.json": File(num_bytes=1, sha256="0" * 64)}
        assert fingerprint(other, graphs=manifest.graphs, files=files) == entry.fingerprint

    def test_covers_the_graph_an_engine_was_built_from(self, dummy_bundle: MakeBundle) -> None:
        manifest = read_manifest(dummy_bundle())
        [entry] = manifest.engines
        plan = msgspec.structs.replace(entry, file="model.plan", files=("model.plan",))
        files = {**manifest.files, "model.plan": File(num_bytes=1, sha256="1" * 64)}
        changed = {**files, "graphs/packed.onnx": File(num_bytes=1, sha256="2" * 64)}
        assert fingerprint(plan, graphs=manifest.graphs, files=files) != fingerprint(
            plan, graphs=manifest.graphs, files=changed
        )


class TestLocate:
    def test_folder_and_file(self, dummy_bundle: MakeBundle, monkeypatch: Any) -> None:
        folder = dummy_bundle()
        assert locate_bundle(folder) == (folder, None)
        assert locate_bundle(folder / "manifest.json") == (folder, None)
        assert locate_bundle(folder / "graphs/packed.onnx") == (folder, "graphs/packed.onnx")
        monkeypatch.chdir(folder / "graphs")
        assert locate_bundle(Path("packed.onnx")) == (folder, "graphs/packed.onnx")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("nothing", "no such file or folder"),
            ("empty", "not a bundle: it has no manifest.json"),
            ("checkpoint", "is a checkpoint, not a bundle; compile it first: embed-export"),
            ("stray.plan", "is in no bundle"),
            ("x" * 5000, "cannot be looked at: "),
            ("a\0b", "no such file|cannot be looked at|null"),
        ],
    )
    def test_what_is_no_bundle(self, tmp_path: Path, name: str, words: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint/config.json").write_text("{}")
        (tmp_path / "stray.plan").write_text("")
        with pytest.raises(BundleError, match=words):
            locate_bundle(tmp_path / name)


@pytest.mark.parametrize(
    ("matryoshka", "allowed", "refused", "words"),
    [
        (None, [32], [0, 1, 31, 33, -1], "only 32"),
        ((), [1, 31, 32], [0, 33, -1], "1..32"),
        ((8, 16), [8, 16, 32], [0, 9, 24, 33], "8, 16, 32"),
    ],
)
def test_dimensions(
    matryoshka: tuple[int, ...] | None, allowed: list[int], refused: list[int], words: str
) -> None:
    dimensions = Dimensions(native=32, matryoshka=matryoshka)
    assert all(dimensions.allows(size) for size in allowed)
    assert not any(dimensions.allows(size) for size in refused)
    assert dimensions.describe() == words
