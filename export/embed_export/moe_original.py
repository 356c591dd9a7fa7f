"""Nomic BERT v2 written out plainly: the original to compare with; transformers has no such model.

One text at a time, in float64, one expert after the other; nothing is shared with our graphs.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embed_export.json_object import JsonObject
from embed_export.weights import Weights

_DoubleArray = npt.NDArray[np.float64]


def nomic_moe_original(
    config: JsonObject, weights: Weights
) -> Callable[[Sequence[int]], list[_DoubleArray]]:
    """Return a function from one row of ids to its [T, H] states after each layer."""
    return _Model(config, weights).run


class _Model:
    """The model of one checkpoint; tensors are read when a text needs them, and kept."""

    def __init__(self, config: JsonObject, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._read: dict[str, _DoubleArray] = {}
        self._width = config.require("hidden_size", int)
        self._inner = config.require("intermediate_size", int)
        self._num_heads = config.require("num_attention_heads", int)
        self._epsilon = config.find("layer_norm_eps", float, 1e-12)

    def run(self, row: Sequence[int]) -> list[_DoubleArray]:
        words = self._take(
            "embeddings.word_embeddings.weight",
            self._config.require("vocab_size", int),
            self._width,
        )
        segments = self._take(
            "embeddings.token_type_embeddings.weight",
            self._config.require("type_vocab_size", int),
            self._width,
        )
        states = [self._norm(words[list(row)] + segments[0], "emb_ln")]
        every = self._config.require("moe_every_n_layers", int)
        for index in range(self._config.require("num_hidden_layers", int)):
            name = f"encoder.layers.{index}"
            attended = self._attention(states[-1], f"{name}.attn")
            normed = self._norm(attended + states[-1], f"{name}.norm1")
            write = self._mixture if index % every == 1 else self._feed_forward
            states.append(self._norm(write(normed, f"{name}.mlp") + normed, f"{name}.norm2"))
        return states

    def _attention(self, states: _DoubleArray, name: str) -> _DoubleArray:
        qkv = self._linear(states, f"{name}.Wqkv", 3 * self._width, self._width)
        size = self._width // self._num_heads
        queries, keys, values = qkv.reshape(len(states), 3, self._num_heads, size).swapaxes(0, 1)
        theta = self._config.find("rope_theta", float, 1000.0)
        turns = theta ** -(np.arange(0, size, 2) / size)
        angles = np.outer(np.arange(len(states)), turns)[:, None]
        queries, keys = _rotate(queries, angles), _rotate(keys, angles)
        scores = np.einsum("ihd,jhd->hij", queries, keys) / math.sqrt(size)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(axis=-1, keepdims=True), values)
        flat = mixed.reshape(len(states), self._width)
        return self._linear(flat, f"{name}.out_proj", self._width, self._width)

    def _feed_forward(self, states: _DoubleArray, name: str) -> _DoubleArray:
        inner = _gelu(self._linear(states, f"{name}.fc1", self._inner, self._width))
        return self._linear(inner, f"{name}.fc2", self._width, self._inner)

    def _mixture(self, states: _DoubleArray, name: str) -> _DoubleArray:
        count, top_k = (self._config.require(key, int) for key in ("num_experts", "moe_top_k"))
        router = self._take(f"{name}.router.layer.weight", count, self._width)
        first, second = (
            self._take(f"{name}.experts.mlp.{kind}", count * self._inner, self._width)
            for kind in ("w1", "w2")
        )
        scores = states @ router.T
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = scores / scores.sum(axis=-1, keepdims=True)
        mixed = np.zeros_like(states)
        chosen = np.argsort(-shares, axis=-1, kind="stable")[:, :top_k]
        for expert in range(count):
            tokens = np.flatnonzero((chosen == expert).any(axis=-1))
            rows = slice(expert * self._inner, (expert + 1) * self._inner)
            inner = _gelu(states[tokens] @ first[rows].T)
            mixed[tokens] += shares[tokens, expert, None] * (inner @ second[rows])
        return mixed + self._take(f"{name}.experts.bias", self._width)

    def _linear(self, values: _DoubleArray, name: str, *shape: int) -> _DoubleArray:
        weight = self._take(f"{name}.weight", *shape)
        return values @ weight.T + self._take(f"{name}.bias", shape[0])

    def _norm(self, values: _DoubleArray, name: str) -> _DoubleArray:
        centered = values - values.mean(axis=-1, keepdims=True)
        root = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + self._epsilon)
        weight, bias = (self._take(f"{name}.{kind}", self._width) for kind in ("weight", "bias"))
        normed: _DoubleArray = centered / root * weight + bias
        return normed

    def _take(self, name: str, *shape: int) -> _DoubleArray:
        if name not in self._read:
            self._read[name] = self._weights.take(name, shape).astype(np.float64)
        return self._read[name]


def _gelu(values: _DoubleArray) -> _DoubleArray:
    # Imported late: recipes are listed where torch is not installed, and numpy has no erf.
    import torch

    tensor = torch.from_numpy(values)  # pyright: ignore[reportUnknownMemberType]
    activated: _DoubleArray = torch.nn.functional.gelu(tensor).numpy()
    return activated


def _rotate(heads: _DoubleArray, angles: _DoubleArray) -> _DoubleArray:
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
