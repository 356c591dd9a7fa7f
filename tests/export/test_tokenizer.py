"""Baked tokenizers: equal to the checkpoint's own, with the ends that its flags ask for."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from embed_export.checkpoint import Checkpoint, open_checkpoint
from embed_export.errors import ExportError
from embed_export.tokenizer import ResolvedTokenizer, prove_tokenizer, resolve_tokenizer

FAMILIES = ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert")


def resolve(folder: Path) -> ResolvedTokenizer:
    """Resolve a folder's tokenizer and prove it."""
    checkpoint = open_checkpoint(str(folder))
    resolved = resolve_tokenizer(checkpoint)
    prove_tokenizer(resolved, checkpoint)
    return resolved


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_tokenizer_is_proven(
    make_checkpoint: Callable[..., Path], family: str
) -> None:
    import transformers

    folder = make_checkpoint(family)
    resolved = resolve(folder)
    automatic: Any = transformers.AutoTokenizer
    original = automatic.from_pretrained(folder, local_files_only=True)
    text = "the quick brown fox, élève 今日 \U0001f642"
    assert resolved.encode(text, max_tokens=128) == original(text)["input_ids"]
    assert resolved.vocab_size == len(original)
    assert resolved.pad_token_id == original.pad_token_id
    assert resolved.num_special_tokens == 2
    assert resolved.max_tokens == 128


def test_what_is_baked_neither_cuts_nor_pads(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert")

    def add_limits(content: dict[str, Any]) -> None:
        tokenizer: Any = Tokenizer.from_str(json.dumps(content))
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=8)
        content |= json.loads(tokenizer.to_str())

    edit(folder / "tokenizer.json", add_limits)
    resolved = resolve(folder)
    baked: Any = Tokenizer.from_str(resolved.tokenizer_json)
    assert baked.truncation is None
    assert baked.padding is None
    assert len(baked.encode("a").ids) == 3
    assert len(baked.encode("a " * 20).ids) == 22


def test_encode_cuts_the_end_and_count_does_not(make_checkpoint: Callable[..., Path]) -> None:
    resolved = resolve(make_checkpoint("bert"))
    whole = resolved.encode("a " * 20, max_tokens=100)
    assert resolved.encode("a " * 20, max_tokens=8) == [*whole[:7], whole[-1]]
    assert resolved.count("a " * 20) == len(whole) == 22


@pytest.mark.parametrize(
    ("family", "pad_token_id", "expected"),
    [("roberta", 3, 3), ("roberta", None, 1), ("roberta", -1, 1), ("bert", 10_000, 0)],
)
def test_the_models_pad_token_comes_first(
    make_checkpoint: Callable[..., Path], family: str, pad_token_id: int | None, expected: int
) -> None:
    folder = make_checkpoint(family, config={"pad_token_id": pad_token_id})
    assert resolve(folder).pad_token_id == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(512, 512), (10**30, None), (None, None), (0, None)]
)
def test_the_tokenizers_own_limit(
    make_checkpoint: Callable[..., Path], limit: int | None, expected: int | None
) -> None:
    folder = make_checkpoint("bert", tokenizer_config={"model_max_length": limit})
    assert resolve(folder).max_tokens == expected


def test_a_vocabulary_alone_is_converted(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert")
    expected = resolve(folder)
    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    found = resolve(folder)
    assert found.vocab_size == expected.vocab_size
    for text in ("The quick brown fox", "Grüße", "[SEP] 今日 xyz", ""):
        assert found.encode(text, max_tokens=99) == expected.encode(text, max_tokens=99)


def test_lowercasing_is_baked_in_as_the_original_does(
    make_checkpoint: Callable[..., Path], load_model: Callable[..., Any]
) -> None:
    folder = make_checkpoint("roberta", pooling=("mean",), do_lower_case=True)
    resolved = resolve(folder)
    original = load_model(folder)
    # A final capital sigma, and a special token that lowercasing must leave alone.
    for text in ("The QUICK Brown Fox", "\u03a3\u0391\u03a3", "A<mask>B</s>C", "STRASSE \u1e9e"):
        expected = original.preprocess([text])["input_ids"][0].tolist()
        assert resolved.encode(text, max_tokens=128) == expected
    plain = resolve(make_checkpoint("roberta", pooling=("mean",)))
    assert plain.encode("FOX", max_tokens=9) != plain.encode("fox", max_tokens=9)
    assert resolved.encode("FOX", max_tokens=9) == resolved.encode("fox", max_tokens=9)


def test_lowercasing_is_not_added_twice(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), do_lower_case=True)
    edit(
        folder / "tokenizer_config.json",
        lambda content: content.update(tokenizer_class="PreTrainedTokenizerFast"),
    )
    steps = [{"type": "NFKC"}, {"type": "Lowercase"}]
    edit(
        folder / "tokenizer.json",
        lambda content: content.update(normalizer={"type": "Sequence", "normalizers": steps}),
    )
    assert json.loads(resolve(folder).tokenizer_json)["normalizer"]["normalizers"] == steps


@pytest.fixture
def make_decoder(make_checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Gives a checkpoint a decoder's tokenizer: a template, flags and a class of its own."""

    def make_decoder(
        template: Sequence[str],
        *,
        tokenizer_class: str = "PreTrainedTokenizerFast",
        **flags: object,
    ) -> Path:
        specials = {"<unk>": 0, "<s>": 1, "</s>": 2, "<x>": 3}
        tokenizer = Tokenizer(models.WordLevel({**specials, "a": 4, "b": 5}, unk_token="<unk>"))
        if tokenizer_class == "Qwen2Tokenizer":
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
            pieces = {**specials, **{piece: number for number, piece in enumerate(alphabet, 4)}}
            tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[]))
            tokenizer.normalizer = normalizers.NFC()
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(list(specials))  # pyright: ignore[reportUnknownMemberType]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=list(template),
            pair=[*template, "$B"],
            special_tokens=list(specials.items()),
        )
        folder = make_checkpoint("bert")
        tokenizer.save(str(folder / "tokenizer.json"))
        words = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
        config = {"tokenizer_class": tokenizer_class, **words, **flags}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return make_decoder


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "Qwen2Tokenizer"])
@pytest.mark.parametrize(
    ("template", "flags", "first", "last"),
    [
        # gte-Qwen2: no template, an EOS is asked for.
        (["$A"], {"add_eos_token": True}, False, True),
        (["$A"], {"add_eos_token": True, "add_bos_token": False}, False, True),
        # e5-mistral: the template has the BOS, the flag asks for an EOS too.
        (["<s>", "$A"], {"add_eos_token": True, "add_bos_token": True}, True, True),
        (["<s>", "$A"], {"add_eos_token": True}, True, True),
        (["$A", "</s>"], {"add_bos_token": True}, True, True),
        # Qwen3-Embedding: what the template adds stays, whatever a flag says.
        (["$A", "</s>"], {"add_bos_token": False, "add_eos_token": False}, False, True),
        (["$A", "</s>"], {"add_eos_token": True}, False, True),
        (["$A"], {}, False, False),
        (["$A"], {"add_eos_token": None}, False, False),
    ],
)
def test_ends_that_flags_ask_for_are_added(
    make_decoder: Callable[..., Path],
    tokenizer_class: str,
    template: Sequence[str],
    flags: dict[str, object],
    first: bool,
    last: bool,
) -> None:
    resolved = resolve(make_decoder(template, tokenizer_class=tokenizer_class, **flags))
    ids = resolved.encode("a", max_tokens=9)
    assert ids[0] == 1 if first else ids[0] > 3
    assert ids[-1] == 2 if last else ids[-1] > 3
    assert len(ids) == 1 + first + last
    assert resolved.num_special_tokens == first + last
    assert Tokenizer.from_str(resolved.tokenizer_json).encode(
        "a", add_special_tokens=False
    ).ids == [number for number in ids if number > 3]


def test_an_end_that_would_cost_another_token_is_refused(
    make_decoder: Callable[..., Path],
) -> None:
    folder = make_decoder(["<x>", "$A"], add_eos_token=True)
    with pytest.raises(ExportError, match=r"asks for add_eos_token, but .* \[3, 4\] was"):
        resolve(folder)


def test_a_wrong_flag_is_refused(make_decoder: Callable[..., Path]) -> None:
    folder = make_decoder(["$A"], add_eos_token="yes")
    with pytest.raises(ExportError, match=r"tokenizer_config\.json: 'add_eos_token' is \"yes\""):
        resolve(folder)


def test_a_tokenizer_that_differs_is_caught(make_checkpoint: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(str(make_checkpoint("bert")))
    resolved = resolve_tokenizer(checkpoint)

    def spoil(change: Callable[[Tokenizer], None]) -> str:
        tokenizer = Tokenizer.from_str(resolved.tokenizer_json)
        change(tokenizer)
        with pytest.raises(ExportError, match="differs from the checkpoint's on") as caught:
            prove_tokenizer(replace(resolved, tokenizer_json=tokenizer.to_str()), checkpoint)
        return str(caught.value)

    def keep_accents(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)

    def keep_controls(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.BertNormalizer(clean_text=False)

    def split_words_only(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def drop_last(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 2)]
        )

    for change in (keep_accents, keep_controls, split_words_only):
        spoil(change)
    assert "on '': [2], not [2, 3]" in spoil(drop_last)


def test_transformers_is_left_as_talkative_as_before(
    make_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    resolve(make_checkpoint("xlm-roberta"))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_a_python_tokenizer_is_refused(
    make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PythonTokenizer:
        is_fast = False

    def load(*_: object, **__: object) -> PythonTokenizer:
        return PythonTokenizer()

    checkpoint: Checkpoint = open_checkpoint(str(make_checkpoint("bert")))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", load)
    with pytest.raises(ExportError, match=r"is Python code \(PythonTokenizer\)"):
        resolve_tokenizer(checkpoint)
