"""Writing a tokenizer so that reading it gives that very tokenizer.

The tokenizers library reads decimal numbers by the short way: digits as an integer, rounded, then
divided by a power of ten, rounded again (serde_json without `float_roundtrip`). Of a Unigram
model's scores about one in eight comes back different in its last bit, and where two segmentations
tie but for rounding ("..." as "." and "..", or the reverse), the tie goes the other way. So scores
are written with digits that survive both roundings.
"""

import json
import math
from typing import cast

from tokenizers import Tokenizer

# Powers of ten up to here are exact in float64.
_MAX_EXPONENT = 22


def bake(tokenizer: Tokenizer) -> str:
    """Write a tokenizer as JSON, without its truncation and padding."""
    content = cast("dict[str, object]", json.loads(tokenizer.to_str()))
    content |= {"truncation": None, "padding": None}
    model = cast("dict[str, object]", content["model"])
    if model["type"] != "Unigram":
        return _dump(content)
    del content["model"]
    pieces = cast("list[tuple[str, float]]", model.pop("vocab"))
    vocab = ",".join(f"[{_dump(piece)},{_spell(score)}]" for piece, score in pieces)
    return _with_last(_dump(content), "model", _with_last(_dump(model), "vocab", f"[{vocab}]"))


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _with_last(members: str, key: str, value: str) -> str:
    """Add one more member to a JSON object that has some."""
    return f'{members[:-1]},"{key}":{value}}}'


def _spell(number: float) -> str:
    """Write a number as digits / 10^n where digits are exact in float64 and so is 10^n.

    Then every reader gets the one rounding of the division. Where there is no such pair (about one
    in 1,500), the shortest decimal has to do.
    """
    for exponent in range(_MAX_EXPONENT + 1):
        scaled = abs(number) * 10.0**exponent
        for digits in (scaled, math.nextafter(scaled, 0), math.nextafter(scaled, math.inf)):
            fits = digits < 2.0**64 and digits.is_integer()
            if fits and digits / 10.0**exponent == abs(number):
                return f"{'-' if number < 0 else ''}{int(digits)}e-{exponent}"
    return repr(number)
