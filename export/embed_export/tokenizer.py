"""The tokenizer that is baked into a bundle: resolved once, then proven equal to the original.

The original is what transformers' AutoTokenizer makes of the checkpoint, with two repairs. It drops
`add_bos_token` and `add_eos_token` wherever there is a tokenizer.json; last-token models such as
e5-mistral and gte-Qwen2 need the EOS that those ask for. And Sentence-Transformers' `do_lower_case`
goes in front of the normalizer, as Sentence-Transformers itself puts it.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Sequence

from embed_export.baking import bake
from embed_export.checkpoint import CONFIG_NAME as MODEL_CONFIG_NAME
from embed_export.checkpoint import Checkpoint
from embed_export.corpus import probe_texts
from embed_export.errors import ExportError, UnsupportedModelError
from embed_export.json_object import JsonObject, read_object
from embed_export.quiet import quiet_transformers
from embed_export.sentencepiece_model import check_conversion
from embed_export.weight_files import refuse_lfs_pointer
from embed_runtime.manifest import MAX_CHAT_TEMPLATE_BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG_NAME = "tokenizer_config.json"
# Any one of these lines is a whole tokenizer.
FILE_SETS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
    ("spiece.model",),
)
# transformers writes 1e30 for "no limit"; no model takes this many tokens.
_NO_LIMIT = 1 << 31

# What the probe texts leave out: case that maps unevenly, markers that tokenizers use themselves,
# words longer than any table.
_MORE_TEXTS = (
    "",
    "\u0130stanbul \u0131\u015f\u0131k STRASSE stra\u00dfe \u1e9e \u01c4 \u01c5",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3\u0391\u03a3 \u1f08\u03c1\u03c7\u03ae",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8 \ud55c\uad6d \u30ab\u3099 \u30ac \u0958 \u0915\u093c",
    "## ##ing word ##s \u2581 \u2581\u2581under \u0120G \u010a <0x41> @@ </w>",
    "\x00\x07\x0b\x0c\x1c\x7f\x80\x9f\ufdd0\ufffe",
    "antidisestablishmentarianism" * 12,
    "x" * 300,
    "\u6f22" * 150,
)
_PROOF_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTokenizer:
    """A tokenizer that needs no transformers.

    Attributes:
        tokenizer_json: The whole of it, for `Tokenizer.from_str`; it neither cuts nor pads, and it
            lowercases by itself where the checkpoint says so.
        vocab_size: One more than its largest id.
        num_words: One more than the largest id of a word. Added tokens may lie beyond, with ids
            that no row of the model belongs to: EmbeddingGemma has one for images.
        pad_token_id: What fills the slots after a short row.
        num_special_tokens: How many it adds to a text.
        unweighted_ids: Tokens that are no words of a text: those for its start and end, padding,
            and what is unknown.
        max_tokens: Its own limit, special tokens included; None if it has none. The model's
            positions, and Sentence-Transformers' files, may allow fewer.
        chat_template: The Jinja template that makes a conversation one text; None without one.
        special_tokens: Texts of its special tokens, by the names that templates use.
    """

    tokenizer_json: str
    vocab_size: int
    num_words: int
    pad_token_id: int
    num_special_tokens: int
    unweighted_ids: tuple[int, ...]
    max_tokens: int | None
    chat_template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    _tokenizer: Tokenizer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", Tokenizer.from_str(self.tokenizer_json))

    def encode(self, text: str, *, max_tokens: int) -> list[int]:
        """Give the ids of a text, special tokens included; the end of a longer text is cut."""
        # The library leaves the type of its keywords open.
        self._tokenizer.enable_truncation(max_tokens)  # pyright: ignore[reportUnknownMemberType]
        return self._tokenizer.encode(text).ids

    def count(self, text: str) -> int:
        """Count the ids of a whole text, special tokens included."""
        self._tokenizer.no_truncation()
        return len(self._tokenizer.encode(text).ids)


class _HubTokenizer(Protocol):
    """What we use of a transformers tokenizer."""

    is_fast: bool
    backend_tokenizer: Tokenizer
    model_max_length: int
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    cls_token_id: int | None
    unk_token_id: int | None
    all_special_tokens: list[str]
    special_tokens_map: Mapping[str, str | list[str]]
    chat_template: str | Mapping[str, str] | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def resolve_tokenizer(checkpoint: Checkpoint) -> ResolvedTokenizer:
    """Bake a checkpoint's tokenizer into one JSON text.

    Raises:
        UnsupportedModelError: It is written in Python, and cannot be baked.
        ExportError: It is missing or damaged.
    """
    with _transformers(checkpoint.model_folder):
        original = _load(checkpoint)
        tokenizer_json = bake(original.backend_tokenizer)
        baked = Tokenizer.from_str(tokenizer_json)
        vocab_size = max(baked.get_vocab(with_added_tokens=True).values()) + 1
        limit = original.model_max_length
        return ResolvedTokenizer(
            tokenizer_json=tokenizer_json,
            vocab_size=vocab_size,
            num_words=max(baked.get_vocab(with_added_tokens=False).values()) + 1,
            pad_token_id=_pad_token_id(checkpoint, original, vocab_size),
            num_special_tokens=baked.num_special_tokens_to_add(is_pair=False),
            unweighted_ids=_unweighted_ids(original),
            max_tokens=limit if 0 < limit < _NO_LIMIT else None,
            chat_template=_chat_template(original, checkpoint.model_folder),
            special_tokens={
                name: token
                for name, token in original.special_tokens_map.items()
                if isinstance(token, str)
            },
        )


def _chat_template(tokenizer: _HubTokenizer, folder: Path) -> str | None:
    """Take the template that transformers found; of several, the one it uses unless told."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if template is not None and len(template.encode()) > MAX_CHAT_TEMPLATE_BYTES:
        raise ExportError(
            f"the chat template in {folder} is larger than {MAX_CHAT_TEMPLATE_BYTES} bytes;"
            " shorten or remove it"
        )
    return template


def _unweighted_ids(tokenizer: _HubTokenizer) -> tuple[int, ...]:
    """List the ids that FlagEmbedding leaves out of sparse weights (1.3, `BGEM3FlagModel`)."""
    ids = (
        tokenizer.cls_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    )
    return tuple(sorted({number for number in ids if number is not None}))


def prove_tokenizer(resolved: ResolvedTokenizer, checkpoint: Checkpoint) -> None:
    """Compare the baked tokenizer with the original, with special tokens and without.

    Raises:
        ExportError: They give different ids; shows the first text where they do.
    """
    with _transformers(checkpoint.model_folder):
        original = _load(checkpoint)
        baked = Tokenizer.from_str(resolved.tokenizer_json)
        source = checkpoint.model_folder / _check_files(checkpoint.model_folder)[0]
        if source.suffix == ".model":
            lowercase = checkpoint.sentence_transformers.lowercase
            check_conversion(source, baked, lowercase=lowercase)
        probes = probe_texts(_PROOF_TOKENS, resolved.count)
        for text in (*_MORE_TEXTS, *probes, *_look_alikes(original.all_special_tokens)):
            for add_special_tokens in (True, False):
                expected = original.encode(text, add_special_tokens=add_special_tokens)
                found = baked.encode(text, add_special_tokens=add_special_tokens).ids
                if found != expected:
                    raise ExportError(
                        f"the baked tokenizer differs from the checkpoint's on {text[:60]!r}:"
                        f" {_show(found)}, not {_show(expected)}"
                    )


@contextmanager
def _transformers(folder: Path) -> Generator[None]:
    """Keep transformers quiet, and turn whatever a damaged file makes it raise into one line."""
    with quiet_transformers():
        try:
            yield
        except ExportError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ExportError(f"the tokenizer in {folder} cannot be used: {reason}") from error


def _look_alikes(special_tokens: list[str]) -> Iterator[str]:
    """Write special tokens into texts, whole and nearly."""
    for token in special_tokens:
        yield from (token, f"a{token}b", f" {token} ", token.lower(), token.upper(), token[:-1])


def _show(ids: list[int]) -> str:
    shown = ", ".join(str(number) for number in ids[:16])
    return f"[{shown}{', ...' if len(ids) > 16 else ''}]"


def _load(checkpoint: Checkpoint) -> _HubTokenizer:
    """Load the original, repaired."""
    folder = checkpoint.model_folder
    _check_files(folder)
    tokenizer = _from_pretrained(folder, {})
    add_bos, add_eos = _missing_ends(tokenizer, folder)
    if add_bos or add_eos:
        tokenizer = _with_ends(tokenizer, folder, add_bos=add_bos, add_eos=add_eos)
    if checkpoint.sentence_transformers.lowercase:
        _lowercase_first(tokenizer.backend_tokenizer)
    return tokenizer


def _check_files(folder: Path) -> tuple[str, ...]:
    """Find the files, and refuse a folder without: transformers would make up a tokenizer."""
    for names in FILE_SETS:
        if all((folder / name).exists() for name in names):
            for name in names:
                refuse_lfs_pointer(folder / name)
            return names
    wanted = "; ".join(" and ".join(names) for names in FILE_SETS)
    raise ExportError(f"{folder} has no tokenizer; looked for {wanted}")


def _from_pretrained(folder: Path, ends: dict[str, bool]) -> _HubTokenizer:
    from transformers import AutoTokenizer

    tokenizer = cast(
        "_HubTokenizer",
        # transformers leaves its types open.
        AutoTokenizer.from_pretrained(  # pyright: ignore[reportUnknownMemberType]
            str(folder),
            config=_foreign_config(folder),
            local_files_only=True,
            trust_remote_code=False,
            **ends,
        ),
    )
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"the tokenizer in {folder} is Python code ({type(tokenizer).__name__}), which has no"
            " tokenizer.json and cannot be baked"
        )
    return tokenizer


def _foreign_config(folder: Path) -> "PreTrainedConfig | None":
    """Make a config for a model type that transformers does not know; None for those it does.

    It needs one to choose the tokenizer's class, and its own stand-in fails at settings that only
    a model understands, such as `rope_scaling`.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    settings = read_object(folder / MODEL_CONFIG_NAME, source=MODEL_CONFIG_NAME)
    if settings.find("model_type", str) in CONFIG_MAPPING:
        return None
    kept = {key: settings[key] for key in ("model_type", "tokenizer_class") if key in settings}
    # transformers leaves its types open.
    return PreTrainedConfig.from_dict(kept)  # pyright: ignore[reportUnknownMemberType]


def _missing_ends(tokenizer: _HubTokenizer, folder: Path) -> tuple[bool, bool]:
    """Tell whether the files ask for a BOS and for an EOS that the tokenizer does not add.

    A flag that is false takes nothing away: a template in tokenizer.json that adds a token is
    what the model was trained with, whatever the flag beside it says.
    """
    path = folder / CONFIG_NAME
    config = read_object(path, source=CONFIG_NAME) if path.exists() else JsonObject({}, source="")
    ids = _encode(tokenizer)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return (
        config.find("add_bos_token", bool, False) and bos is not None and ids[:1] != [bos],
        config.find("add_eos_token", bool, False) and eos is not None and ids[-1:] != [eos],
    )


def _with_ends(
    tokenizer: _HubTokenizer, folder: Path, *, add_bos: bool, add_eos: bool
) -> _HubTokenizer:
    """Load again with the ends that are missing, and check that nothing else changed."""
    before = _encode(tokenizer)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ends = {
        "add_bos_token": add_bos or (bos is not None and before[:1] == [bos]),
        "add_eos_token": add_eos or (eos is not None and before[-1:] == [eos]),
    }
    repaired = _from_pretrained(folder, ends)
    expected = [*([bos] if add_bos else ()), *before, *([eos] if add_eos else ())]
    found = _encode(repaired)
    if found != expected:
        raise ExportError(
            f"{CONFIG_NAME} asks for {', '.join(name for name, on in ends.items() if on)}, but"
            f" adding them gives {_show(found)} where {before} was; set the template in"
            " tokenizer.json instead"
        )
    return repaired


def _encode(tokenizer: _HubTokenizer) -> list[int]:
    return tokenizer.encode("a", add_special_tokens=True)


def _lowercase_first(backend: Tokenizer) -> None:
    """Put lowercasing in front of the normalizer, unless it is among its steps already."""
    normalizer = backend.normalizer
    steps = [normalizer] if normalizer is not None else []
    if isinstance(normalizer, Sequence):
        steps = [normalizer[index] for index in range(len(normalizer))]
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])


def _pad_token_id(checkpoint: Checkpoint, tokenizer: _HubTokenizer, vocab_size: int) -> int:
    """Choose the id for empty slots; the model's own first, since RoBERTa's positions skip it."""
    candidates = (
        checkpoint.config.find("pad_token_id", int),
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
    )
    usable = (number for number in candidates if number is not None and 0 <= number < vocab_size)
    return next(usable, 0)
