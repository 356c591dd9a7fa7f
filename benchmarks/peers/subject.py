"""One system and its texts, as a worker runs them; imports nothing but numpy and the system."""

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class System(Protocol):
    """A loaded system; its class takes `path`, `precision`, `num_threads` and `max_tokens`.

    Attributes:
        engine: What computes in it, with its version.
    """

    engine: str

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Return [N, D] float32, in the order of the texts."""
        ...

    def padding_share(self) -> float | None:
        """Share of computed token slots that were padding, 0 to 1; None if it is not known."""
        ...

    def close(self) -> None:
        """Free what the system holds."""
        ...


class PeerSubject:
    """A system with the texts of a pass and the queries of a burst."""

    def __init__(self, *, system: str, options: dict[str, object], texts: str) -> None:
        """Load the system.

        Args:
            system: `module:name` of its class.
            options: Arguments of its class.
            texts: JSON file with the texts of a pass and the queries.
        """
        module, _, name = system.partition(":")
        self._system: System = getattr(import_module(module), name)(**options)
        document = json.loads(Path(texts).read_text())
        self._texts: list[str] = document["texts"]
        self._queries: list[str] = document["queries"]
        self._next_query = 0
        self._vectors: NDArray[np.float32] | None = None
        self._padding_share: float | None = None

    def first_vector(self) -> None:
        """Embed one text, the first of this process."""
        self._query()

    def embed(self) -> None:
        """Embed all texts in one call."""
        self._vectors = self._system.embed(self._texts)
        # Now, before single queries thin it out.
        self._padding_share = self._system.padding_share()

    def query(self, *, num_queries: int, seconds: float) -> list[float]:
        """Embed one text after another and return the seconds of each.

        Args:
            num_queries: How many, at most.
            seconds: Stop earlier when this time is over.
        """
        started = time.perf_counter()
        taken: list[float] = []
        while len(taken) < num_queries and time.perf_counter() - started < seconds:
            taken.append(self._query())
        return taken

    def outcome(self, *, vectors: str) -> dict[str, object]:
        """Write the vectors of the last pass as .npy and say what the system tells of itself."""
        assert self._vectors is not None, "outcome before the first pass"
        np.save(vectors, self._vectors)
        return {"engine": self._system.engine, "padding_share": self._padding_share}

    def close(self) -> None:
        """Close the system."""
        self._system.close()

    def _query(self) -> float:
        query = self._queries[self._next_query % len(self._queries)]
        self._next_query += 1
        started = time.perf_counter()
        self._system.embed([query])
        return time.perf_counter() - started
