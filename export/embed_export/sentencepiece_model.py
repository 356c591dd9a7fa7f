"""A checkpoint whose only tokenizer is a SentencePiece model: did transformers convert it right?

Where it did not it says nothing: release 5.23 drops the first space of a Mistral's tokens, and
reads no piece of a `spiece.model` beside an XLM-RoBERTa. On unusual characters, and where
segmentations tie, every conversion differs a little from the library, also those that authors
publish as tokenizer.json; so only plain writing is compared.
"""

from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from embed_export.corpus import SCRIPTS
from embed_export.errors import ExportError


def check_conversion(path: Path, converted: Tokenizer, *, lowercase: bool) -> None:
    """Compare the pieces of plain texts in many scripts.

    Args:
        path: The model.
        converted: What transformers made of it.
        lowercase: Whether that lowercases ahead of the model.

    Raises:
        ExportError: It gives other pieces.
    """
    original = SentencePieceProcessor(model_file=str(path))
    for written in SCRIPTS:
        text = written.lower() if lowercase else written
        expected: list[str] = [original.id_to_piece(number) for number in original.encode(text)]
        ids = converted.encode(text, add_special_tokens=False).ids
        found = [converted.id_to_token(number) for number in ids]
        if found != expected:
            raise ExportError(
                f"{path}: transformers does not convert it right: {text[:20]!r} becomes"
                f" {found[:4]}, not {expected[:4]}; add the model's tokenizer.json"
            )
