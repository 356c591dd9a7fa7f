"""What a manifest must not say: every way in which its records can contradict each other."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from embed_runtime.manifest import (
    MANIFEST_NAME,
    MAX_CHAT_TEMPLATE_BYTES,
    SCHEMA_VERSION,
    TOKENIZER_NAME,
    Manifest,
)

MAX_SIZE = (1 << 31) - 1


def find_problems(manifest: Manifest) -> Iterator[str]:
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
    marks = manifest.pooling.prompt_marks
    if marks is not None and (manifest.pooling.include_prompt or not (marks.start and marks.end)):
        yield "pooling.prompt_marks needs two texts, and include_prompt to be false"


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
