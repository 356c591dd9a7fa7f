"""Baked JSON: what is read back is what was written, to the last bit."""

import json
import math
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from embed_export.baking import bake


def scores(tokenizer_json: str) -> list[float]:
    vocab: list[tuple[str, float]] = json.loads(tokenizer_json)["model"]["vocab"]
    return [score for _, score in vocab]


def test_unigram_scores_survive_reading() -> None:
    random = np.random.default_rng(7)
    drawn = [*-random.uniform(0, 20, 3000).astype(np.float32), *-random.uniform(0, 20, 1000)]
    expected = [0.0, -100.0, 1e-30, 0.1, *map(float, drawn)]
    tokenizer = Tokenizer(
        models.Unigram([(f'"{index}\\', score) for index, score in enumerate(expected)], unk_id=0)
    )
    baked = bake(tokenizer)
    found = scores(Tokenizer.from_str(baked).to_str())
    wrong = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    assert len(wrong) < len(expected) / 500
    assert all(math.isclose(one, other, rel_tol=1e-15) for one, other in wrong)
    # A reader that rounds once gets every score.
    assert scores(baked) == expected


def test_nothing_else_changes(dummy_tokenizer: Tokenizer) -> None:
    expected: dict[str, Any] = json.loads(dummy_tokenizer.to_str())
    tokenizer: Any = Tokenizer.from_str(dummy_tokenizer.to_str())
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    assert json.loads(bake(tokenizer)) == expected
