"""`manifest.json`: all that a bundle says about itself, read strictly and written once."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, dataclass_transform

import msgspec

from embed_runtime.errors import BundleError
from embed_runtime.types import OutputName, Precision, Task

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CERTIFICATE_NAME = "certificate.json"
TOKENIZER_NAME = "tokenizer.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"

MAX_MANIFEST_BYTES = 1 << 24
MAX_CHAT_TEMPLATE_BYTES = 1 << 20
MAX_SIZE = (1 << 31) - 1

PoolingMode: TypeAlias = Literal[
    "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]
Similarity: TypeAlias = Literal["cosine", "dot", "euclidean", "manhattan"]
Activation: TypeAlias = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]
Dialect: TypeAlias = Literal["padded", "packed", "packed-fp16", "packed-bf16", "packed-int8"]
Device: TypeAlias = Literal["cpu", "cuda"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable part of the manifest; unknown keys are refused.

    A subclass repeats `kw_only`: of the options above, msgspec inherits all but that one.
    """


class Model(Record, kw_only=True):
    """Where the bundle's weights came from."""

    id: str
    architecture: str
    model_type: str
    revision: str | None = None
    license: str | None = None


class Pooling(Record, kw_only=True):
    """How token vectors become one vector; several modes are concatenated in this order.

    The names are those of Sentence-Transformers' pooling configuration.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True


class Dense(Record, kw_only=True):
    """A linear head after pooling."""

    in_features: int
    out_features: int
    bias: bool
    activation: Activation


class Dimensions(Record, kw_only=True):
    """Vector sizes: the native one, and the smaller ones the model was trained for.

    Attributes:
        native: What the model gives.
        matryoshka: None: only `native`; empty: any size from `smallest` to `native`; else the
            listed sizes.
        smallest: Where any size goes, the smallest.
        center: Whether the mean of a whole vector is taken from its values before it is cut. With
            the scaling to unit length that follows, this is the layer norm without weights that
            nomic-embed-text-v1.5 was trained with.
    """

    native: int
    matryoshka: tuple[int, ...] | None = None
    smallest: int = 1
    center: bool = False

    def allows(self, dimensions: int) -> bool:
        """Tell whether vectors may be cut to this size; the native size always may."""
        if dimensions == self.native:
            return True
        if self.matryoshka is None:
            return False
        if not self.matryoshka:
            return self.smallest <= dimensions < self.native
        return dimensions in self.matryoshka

    def describe(self) -> str:
        """Say in words which sizes are allowed."""
        if self.matryoshka is None:
            return f"only {self.native}"
        if not self.matryoshka:
            return f"{self.smallest}..{self.native}"
        return ", ".join(str(size) for size in sorted({*self.matryoshka, self.native}))


class Sparse(Record, kw_only=True):
    """Where the weights of the vocabulary's tokens are found.

    Attributes:
        output: `embedding`: its values are the weights, one for each token of the vocabulary
            (SPLADE). `token_weights`: a token's weight is the largest one it has in the text.
        skipped_ids: Tokens that are never reported, such as those around every text.
        pooling: How SPLADE pools the tokens of a text; None for `token_weights`.
        double_log: Whether SPLADE's logits x become log1p(log1p(relu(x))), not log1p(relu(x)).
    """

    output: Literal["embedding", "token_weights"]
    skipped_ids: tuple[int, ...] = ()
    pooling: Literal["max", "sum"] | None = None
    double_log: bool = False


class TokenHead(Record, kw_only=True):
    """A linear head on every token (ColBERT): what `token_embeddings` holds instead of states.

    Attributes:
        dimensions: Size of a token's vector.
        normalize: Whether the reader scales it to unit length.
        num_dropped: First tokens of a text that the reader leaves out.
    """

    dimensions: int
    normalize: bool
    num_dropped: int


class TokenizerSpec(Record, kw_only=True):
    """What the runtime must know beyond `tokenizer.json`."""

    vocab_size: int
    pad_token_id: int
    num_special_tokens: int = 2


class ChatTemplate(Record, kw_only=True):
    """How a conversation becomes one text: a Jinja template, and what it knows by name.

    `special_tokens` has the texts of tokens by the names that templates use, like "bos_token".
    """

    file: str
    special_tokens: dict[str, str] = {}


class Positions(Record, kw_only=True):
    """How position ids count: from `offset`, not counting `skip_id` tokens where one is given.

    RoBERTa starts at pad_token_id + 1 and gives pad_token_id to every pad token, also to one that
    a text spells out (transformers, `create_position_ids_from_input_ids`).
    """

    offset: int = 0
    skip_id: int | None = None


class Graph(Record, kw_only=True):
    """One ONNX file and the weight file it shares with its siblings."""

    dialect: Dialect
    files: tuple[str, ...]
    opset: int


class EngineEntry(Record, kw_only=True):
    """One engine of the bundle; entries stand in order of preference, the fastest first.

    Attributes:
        backend: File name in `embed_runtime/engines`.
        file: The file a person names to ask for this engine.
        files: Every file it needs, `file` included.
        dialect: The graph it was built from.
        precision: What it computes in.
        device: Where it runs.
        producer: Library and version that built it; a plan runs only under the same one.
        targets: Compute capabilities it was built for, like "8.9"; empty on a CPU.
        max_batch_tokens: Largest total of tokens in one batch; None if it has no limit of its own.
        num_fused_attention: Attention layers that became one kernel; None where not known.
        tokens_per_second: Measured at export on the machine that exported; None if not run there.
        certified: Whether the certificate holds figures of this very engine.
        fingerprint: SHA-256 over graph, weights, producer, precision and targets.
    """

    backend: str
    file: str
    files: tuple[str, ...]
    dialect: Dialect
    precision: Precision
    device: Device
    producer: str
    targets: tuple[str, ...] = ()
    max_batch_tokens: int | None = None
    num_fused_attention: int | None = None
    tokens_per_second: float | None = None
    certified: bool
    fingerprint: str


class File(Record, kw_only=True):
    """Size and SHA-256 (64 hex digits) of one file."""

    num_bytes: int
    sha256: str


class PrecisionPolicy(Record, kw_only=True):
    """What the model can be exported in.

    Attributes:
        max_activation: Largest absolute activation of the original on the probe texts.
        allowed: Precisions whose range holds that, of those the family has.
    """

    max_activation: float
    allowed: tuple[Precision, ...]


class Manifest(Record, kw_only=True):
    """Everything the runtime needs to know about a bundle.

    `adapters` names the low-rank adapters in the graphs, in the order of their ids; each is the
    name of a prompt too, and a request that names that prompt gets both.
    """

    schema_version: int
    model: Model
    precision: Precision
    precision_policy: PrecisionPolicy | None = None
    pooling: Pooling
    heads: tuple[Dense, ...] = ()
    sparse: Sparse | None = None
    token_head: TokenHead | None = None
    normalize: bool
    dimensions: Dimensions
    max_tokens: int
    hidden_size: int
    num_layers: int
    similarity: Similarity = "cosine"
    prompts: dict[str, str] = {}
    adapters: tuple[str, ...] = ()
    default_prompt: str | None = None
    tokenizer: TokenizerSpec
    chat_template: ChatTemplate | None = None
    positions: Positions
    outputs: tuple[OutputName, ...]
    graphs: tuple[Graph, ...]
    engines: tuple[EngineEntry, ...]
    versions: dict[str, str]
    files: dict[str, File]

    @property
    def is_splade(self) -> bool:
        """Whether the vector is weights, one for each token of the vocabulary."""
        return self.sparse is not None and self.sparse.output == "embedding"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the bundle can be asked for."""
        has_tokens = "token_embeddings" in self.outputs
        return (
            "embed",
            *(("token_embed",) if has_tokens else ()),
            *(("sparse",) if self.sparse is not None else ()),
        )


class _Version(msgspec.Struct):
    """The one field that is read before anything else is believed."""

    schema_version: int


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle; no other file is opened.

    Raises:
        BundleError: It is missing, damaged, of another schema, or contradicts itself.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes, not a manifest")
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(text, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, this release reads {SCHEMA_VERSION};"
                " export the model again or install the release that wrote it"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a valid manifest: {error}") from error
    _check(manifest, path)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a bundle, in the form `read_manifest` takes.

    Raises:
        BundleError: The manifest contradicts itself, so no reader would take it.
    """
    path = folder / MANIFEST_NAME
    _check(manifest, path)
    replace_file(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: readers, and a machine that stops half-way, see the old or the new."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def describe_file(path: Path) -> File:
    """Measure and hash one file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return File(num_bytes=stream.tell(), sha256=digest)


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Check that files of a bundle are the very bytes the manifest speaks of.

    Raises:
        BundleError: A file is not in the manifest, is missing, lies elsewhere or was changed.
    """
    root = os.path.realpath(folder)
    for name in names:
        expected = manifest.files.get(name)
        if expected is None:
            raise BundleError(f"{folder}: the manifest lists no file {name!r}")
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise BundleError(f"{path}: a link that leads out of the bundle; copy the file itself")
        try:
            # The size first: a file cut short is told without hashing gigabytes.
            num_bytes = path.stat().st_size
            intact = num_bytes == expected.num_bytes and describe_file(path) == expected
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        if not intact:
            raise BundleError(
                f"{path}: not the file the manifest describes ({num_bytes} bytes, expected"
                f" {expected.num_bytes} with SHA-256 {expected.sha256[:12]}...);"
                " copy or export the bundle again"
            )


def fingerprint(entry: EngineEntry, *, graphs: Sequence[Graph], files: Mapping[str, File]) -> str:
    """Hash all that decides what an engine computes: where two agree, so do their vectors.

    Covers the bytes of the engine and of its graph, the library that built it, and what for;
    not the measurements (`tokens_per_second`, `certified`) and not `entry.fingerprint` itself.
    """
    names = {*entry.files}
    for graph in graphs:
        if graph.dialect == entry.dialect:
            names.update(graph.files)
    facts = [
        entry.backend, entry.dialect, entry.precision, entry.device, entry.producer,
        list(entry.targets), [(name, files[name].sha256) for name in sorted(names)],
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def locate_bundle(path: Path) -> tuple[Path, str | None]:
    """Find the bundle a path means: its folder, or one engine file in it.

    Returns:
        The folder, and the name of the engine file as the manifest spells it where one was named.

    Raises:
        BundleError: There is nothing there, or it is not a bundle.
    """
    try:
        return _locate(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{str(path)!r:.200}: cannot be looked at: {error}") from error


def _locate(path: Path) -> tuple[Path, str | None]:
    if path.is_dir():
        if (path / MANIFEST_NAME).is_file():
            return path, None
        if (path / "config.json").is_file():
            raise BundleError(
                f"{path} is a checkpoint, not a bundle; compile it first: embed-export {path}"
            )
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST_NAME}; embed-export writes bundles"
        )
    if not path.is_file():
        raise BundleError(f"{path}: no such file or folder; give a bundle that embed-export wrote")
    for folder in list(path.absolute().parents)[:3]:
        if (folder / MANIFEST_NAME).is_file():
            name = path.absolute().relative_to(folder).as_posix()
            return folder, None if name == MANIFEST_NAME else name
    raise BundleError(f"{path} is in no bundle: no {MANIFEST_NAME} beside or above it")


def _check(manifest: Manifest, path: Path) -> None:
    """Refuse a manifest that contradicts itself, with its first contradiction."""
    for problem in _problems(manifest):
        raise BundleError(f"{path}: {problem}; export the model again")


def _problems(manifest: Manifest) -> Iterator[str]:
    """Yield every contradiction, cheapest first; later ones may rely on earlier ones."""
    yield from _size_problems(manifest)
    yield from _vector_problems(manifest)
    yield from _sparse_problems(manifest)
    yield from _file_problems(manifest)
    yield from _engine_problems(manifest)
    if manifest.schema_version != SCHEMA_VERSION:
        yield f"schema version {manifest.schema_version}, this release writes {SCHEMA_VERSION}"
    if manifest.default_prompt is not None and manifest.default_prompt not in manifest.prompts:
        yield f"default prompt {manifest.default_prompt!r} is not among the prompts"
    for name in manifest.adapters:
        if manifest.adapters.count(name) > 1:
            yield f"there are several adapters {name!r}"
        if name not in manifest.prompts:
            yield f"adapter {name!r} is not among the prompts"
    if "embedding" not in manifest.outputs:
        yield "outputs lack 'embedding'"


def _size_problems(manifest: Manifest) -> Iterator[str]:
    """Yield numbers outside what any model can have."""
    for name, value, least in (
        ("dimensions.native", manifest.dimensions.native, 1),
        ("max_tokens", manifest.max_tokens, 1),
        ("hidden_size", manifest.hidden_size, 1),
        ("num_layers", manifest.num_layers, 1),
        ("tokenizer.vocab_size", manifest.tokenizer.vocab_size, 1),
        ("tokenizer.pad_token_id", manifest.tokenizer.pad_token_id, 0),
        ("tokenizer.num_special_tokens", manifest.tokenizer.num_special_tokens, 0),
        ("positions.offset", manifest.positions.offset, 0),
        *(
            (f"heads[{i}].in_features", head.in_features, 1)
            for i, head in enumerate(manifest.heads)
        ),
    ):
        if not least <= value <= MAX_SIZE:
            yield f"{name} is {value}, outside {least}..{MAX_SIZE}"
    if manifest.tokenizer.pad_token_id >= manifest.tokenizer.vocab_size:
        yield (
            f"pad_token_id {manifest.tokenizer.pad_token_id} is outside the vocabulary of"
            f" {manifest.tokenizer.vocab_size}"
        )


def _vector_problems(manifest: Manifest) -> Iterator[str]:
    """Yield sizes that do not chain: pooled token vectors through the heads to the native size."""
    if manifest.is_splade:
        return
    if not manifest.pooling.modes:
        yield "pooling has no mode"
    size = manifest.hidden_size * len(manifest.pooling.modes)
    for number, head in enumerate(manifest.heads):
        if head.in_features != size:
            yield f"heads[{number}] takes {head.in_features} values but gets {size}"
        size = head.out_features
    native = manifest.dimensions.native
    if native != size:
        yield f"dimensions.native is {native} but pooling and heads give {size}"
    if not 1 <= manifest.dimensions.smallest <= native:
        yield f"dimensions.smallest is {manifest.dimensions.smallest}, outside 1..{native}"
    for size in manifest.dimensions.matryoshka or ():
        if not 1 <= size <= native:
            yield f"matryoshka size {size} is outside 1..{native}"


def _sparse_problems(manifest: Manifest) -> Iterator[str]:
    """Yield contradictions about the heads that give weights of tokens, or vectors of them."""
    head, sparse = manifest.token_head, manifest.sparse
    if head is not None:
        if "token_embeddings" not in manifest.outputs:
            yield "token_head describes 'token_embeddings', which outputs lack"
        for name, value, least in (
            ("dimensions", head.dimensions, 1),
            ("num_dropped", head.num_dropped, 0),
        ):
            if not least <= value <= MAX_SIZE:
                yield f"token_head.{name} is {value}, outside {least}..{MAX_SIZE}"
    if ("token_weights" in manifest.outputs) != (
        sparse is not None and sparse.output == "token_weights"
    ):
        yield "'token_weights' must be the output of sparse and among outputs, or neither"
    if sparse is None:
        return
    if (sparse.output == "embedding") != (sparse.pooling is not None):
        yield "sparse.pooling belongs to the output 'embedding', and to that alone"
    if sparse.output == "embedding":
        yield from _splade_problems(manifest)
    for token_id in sparse.skipped_ids:
        if not 0 <= token_id < manifest.tokenizer.vocab_size:
            yield f"sparse.skipped_ids has {token_id}, outside the vocabulary"


def _splade_problems(manifest: Manifest) -> Iterator[str]:
    """Yield what cannot be where the embedding is the weights of the vocabulary."""
    native, vocab_size = manifest.dimensions.native, manifest.tokenizer.vocab_size
    if native != vocab_size:
        yield f"dimensions.native is {native}, but sparse weighs a vocabulary of {vocab_size}"
    for name, is_there in (
        ("pooling.modes", bool(manifest.pooling.modes)),
        ("heads", bool(manifest.heads)),
        ("normalize", manifest.normalize),
        ("dimensions.matryoshka", manifest.dimensions.matryoshka is not None),
    ):
        if is_there:
            yield f"{name} is set, but weights of the vocabulary are neither pooled so nor changed"


def _file_problems(manifest: Manifest) -> Iterator[str]:
    """Yield names that leave the bundle and hashes that are none."""
    for name, file in manifest.files.items():
        plain = PurePosixPath(name)
        if (
            plain.is_absolute()
            or not plain.parts
            or not name.isprintable()
            or ".." in plain.parts
            or str(plain) != name
            or any(character in name for character in "\\:")
        ):
            yield f"file name {name!r} is not a plain path inside the bundle"
        if name == MANIFEST_NAME:
            yield f"{MANIFEST_NAME} cannot hold its own hash"
        if file.num_bytes < 0:
            yield f"file {name!r} has {file.num_bytes} bytes"
        if not _is_sha256(file.sha256):
            yield f"file {name!r} has no valid SHA-256"
    if TOKENIZER_NAME not in manifest.files:
        yield f"files lack {TOKENIZER_NAME}"
    if manifest.chat_template is not None:
        stored = manifest.files.get(manifest.chat_template.file)
        if stored is None:
            yield f"the chat template is the unknown file {manifest.chat_template.file!r}"
        elif stored.num_bytes > MAX_CHAT_TEMPLATE_BYTES:
            yield f"the chat template is larger than {MAX_CHAT_TEMPLATE_BYTES} bytes"
    dialects = [graph.dialect for graph in manifest.graphs]
    for graph in manifest.graphs:
        if dialects.count(graph.dialect) > 1:
            yield f"there are several graphs {graph.dialect!r}"
        if not graph.files:
            yield f"graph {graph.dialect!r} has no file"
        for name in graph.files:
            if name not in manifest.files:
                yield f"graph {graph.dialect!r} names the unknown file {name!r}"


def _engine_problems(manifest: Manifest) -> Iterator[str]:
    """Yield engines whose files are unknown or whose limits cannot be."""
    for entry in manifest.engines:
        if not (entry.backend.isprintable() and entry.producer.isprintable()):
            yield f"engine {entry.backend!r} of {entry.producer!r} has no printable name"
        if entry.file not in entry.files:
            yield f"engine {entry.backend!r} does not list its own file {entry.file!r}"
        for name in entry.files:
            if name not in manifest.files:
                yield f"engine {entry.backend!r} names the unknown file {name!r}"
        limit = entry.max_batch_tokens
        if limit is not None and not manifest.max_tokens <= limit <= MAX_SIZE:
            yield (
                f"engine {entry.backend!r} takes {limit} tokens in one batch, and one input may"
                f" have {manifest.max_tokens}"
            )
        if not _is_sha256(entry.fingerprint):
            yield f"engine {entry.backend!r} has no valid fingerprint"


def _is_sha256(text: str) -> bool:
    """Tell whether a text is 64 lower-case hex digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
