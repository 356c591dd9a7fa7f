"""Which tokenizers may get a text that was cut anywhere, even in a word."""

from collections.abc import Iterable

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

# A cut may change the tokens of the word it goes through, and of an added token it goes through.
# One character becomes at most four where accents are taken off, and a token has one at least:
# 100 + 4 * 32 tokens, fewer than `framing.SURPLUS_TOKENS`.
_MAX_WORD_CHARS = 100
_MAX_ADDED_CHARS = 32


def can_tear(library: tokenizers.Tokenizer) -> bool:
    """Tell whether a cut anywhere in a text changes only fewer tokens beside it than the surplus.

    That is proven for BERT's tokenizers. They read a text one character at a time (what to drop,
    what to lower, where a word ends), and a word is one unknown token or has no more tokens than
    characters. Only the order of accents depends on neighbours, in the same word. BPE and Unigram
    look at a whole run of letters at once, which in Chinese can be the whole text.
    """
    model, normalizer = library.model, library.normalizer
    return (
        isinstance(model, WordPiece)
        and model.max_input_chars_per_word <= _MAX_WORD_CHARS
        and (normalizer is None or isinstance(normalizer, BertNormalizer))
        and isinstance(library.pre_tokenizer, BertPreTokenizer)
        and _stay_apart(
            token.content.lower() for token in library.get_added_tokens_decoder().values()
        )
    )


def _stay_apart(added: Iterable[str]) -> bool:
    """Tell whether added tokens are short, and none can begin in another and end behind it.

    Else what is found at the front of a torn text could shift all that is found after it.
    """
    texts = set(added)
    fronts = {text[:end] for text in texts for end in range(1, len(text))}
    ends = {text[start:] for text in texts for start in range(1, len(text))}
    are_plain = all(text.isascii() and len(text) <= _MAX_ADDED_CHARS for text in texts)
    return are_plain and fronts.isdisjoint(ends)
