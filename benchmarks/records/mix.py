"""Queries beside documents in bulk, on one server."""

from benchmarks.records.base import Record, Result
from benchmarks.records.load import LoadFigures
from embed_runtime.types import Precision


class MixRound(Record, frozen=True, kw_only=True):
    """The two streams of requests, each alone and both at once, one after another.

    Attributes:
        queries_alone: Queries on an idle server.
        bulk_alone: Documents without queries.
        queries: Queries while documents were embedded.
        bulk: Documents at the same time.
    """

    queries_alone: LoadFigures
    bulk_alone: LoadFigures
    queries: LoadFigures
    bulk: LoadFigures


class MixResult(Result, frozen=True, kw_only=True, tag="mix"):
    """Queries beside documents in bulk.

    Attributes:
        model: Which model.
        engine: What computed.
        precision: Of weights and activations.
        num_threads: Threads of the engine.
        tokens_per_query: Mean tokens of a query, one in a request.
        tokens_per_document: Mean tokens of a document.
        documents_per_request: Documents in a request of the bulk stream.
        pause_milliseconds: From a query's answer to the next query.
        rounds: In the order in which they ran.
        memory_bytes: Resident memory of the server afterwards.
    """

    model: str
    engine: str
    precision: Precision
    num_threads: int
    tokens_per_query: float
    tokens_per_document: float
    documents_per_request: int
    pause_milliseconds: int
    rounds: tuple[MixRound, ...]
    memory_bytes: int
