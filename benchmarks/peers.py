"""The systems that are compared: each turns the same texts into vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embed_runtime.types import FloatArray, Precision


class Peer(Protocol):
    """A loaded system.

    Attributes:
        engine: What computes in it, with its version.
    """

    engine: str

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return [N, D] float32, in the order of the texts."""
        ...

    def padding_share(self) -> float | None:
        """Share of computed token slots that were padding, 0 to 1; None if it is not known."""
        ...

    def close(self) -> None:
        """Free what the system holds."""
        ...


class SentenceTransformersPeer:
    """sentence-transformers as its documentation uses it: PyTorch, batches of 32."""

    _BATCH_SIZE = 32

    def __init__(self, path: Path, num_threads: int) -> None:
        import sentence_transformers
        import torch

        torch.set_num_threads(num_threads)
        self._model = sentence_transformers.SentenceTransformer(str(path), device="cpu")
        self.engine = f"torch {torch.__version__}"
        self._num_slots = 0
        self._num_tokens = 0
        self._model[0].register_forward_pre_hook(self._count_padding)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed with the library's defaults, normalized."""
        vectors = self._model.encode(  # pyright: ignore[reportUnknownMemberType] - untyped **kwargs
            list(texts),
            batch_size=self._BATCH_SIZE,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    def padding_share(self) -> float | None:
        """Share of all token slots; every operation runs on all of them."""
        return 1 - self._num_tokens / self._num_slots if self._num_slots else None

    def close(self) -> None:
        """Nothing is held that its process does not free."""

    def _count_padding(self, _module: object, inputs: tuple[dict[str, Any], ...]) -> None:
        """See each batch on its way into the model."""
        mask = inputs[0]["attention_mask"]
        self._num_slots += mask.numel()
        self._num_tokens += int(mask.sum())


class RuntimePeer:
    """This project: a bundle and its default engine."""

    def __init__(self, path: Path, num_threads: int) -> None:
        from embed_runtime import Runtime, RuntimeConfig

        self._runtime = Runtime(path, config=RuntimeConfig(num_threads=num_threads))
        self.engine = self._runtime.engine_entry.producer

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed in one call, normalized."""
        return self._runtime.embed(list(texts), normalize=True)

    def padding_share(self) -> float | None:
        """Share of attention slots; every other operation runs on real tokens only."""
        return self._runtime.stats().padding_share

    def close(self) -> None:
        """Close the runtime."""
        self._runtime.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a peer's passes gave, as it travels from its process."""

    engine: str
    vectors: FloatArray
    padding_share: float | None


class PeerSubject:
    """A peer and its texts, as a worker runs them."""

    def __init__(self, peer: Peer, texts: Sequence[str]) -> None:
        self._peer = peer
        self._texts = texts
        self._vectors: FloatArray | None = None

    def run(self) -> None:
        """Embed all texts once."""
        self._vectors = self._peer.embed(self._texts)

    def outcome(self) -> Outcome:
        """Return the vectors of the last pass and the peer's own account."""
        assert self._vectors is not None, "outcome before the first pass"
        return Outcome(
            engine=self._peer.engine,
            vectors=self._vectors,
            padding_share=self._peer.padding_share(),
        )

    def close(self) -> None:
        """Close the peer."""
        self._peer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSpec:
    """A peer to compare; calling it opens the subject.

    Attributes:
        name: The system's name in results.
        precision: What it computes in.
        open_peer: Loads it from a folder, for a number of threads.
        path: Checkpoint or bundle.
        texts: What it embeds in a pass.
        num_threads: Threads it may compute with.
    """

    name: str
    precision: Precision
    open_peer: Callable[[Path, int], Peer]
    path: Path
    texts: tuple[str, ...]
    num_threads: int

    def __call__(self) -> PeerSubject:
        """Load the peer in the process that measures it."""
        return PeerSubject(self.open_peer(self.path, self.num_threads), self.texts)
