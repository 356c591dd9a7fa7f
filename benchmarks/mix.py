"""Queries beside documents in bulk: what each costs the other."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.bodies import write_bodies
from benchmarks.records.load import LoadFigures
from benchmarks.records.mix import MixRound
from benchmarks.servers import RunningServer
from benchmarks.texts import query_texts, texts_of_length, token_counter
from benchmarks.wrk import Stream, run_streams

# Few, so that what is answered in some seconds is many requests; one alone would pass for a query.
DOCUMENTS_PER_REQUEST = 2
# About ten queries a second: without a pause, a single client asks for half of the processor.
PAUSE_MILLISECONDS = 100

_NUM_QUERIES = 400
_QUERY_TOKENS = range(22, 39)
_NUM_BULK_REQUESTS = 64
_BULK_CONNECTIONS = 16
_WARM_UP_SECONDS = 2
# Until a server has dropped what a client that ended had still asked for.
_SETTLE_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MixBodies:
    """Requests of both streams, as files.

    Attributes:
        queries: One text in each.
        bulk: `DOCUMENTS_PER_REQUEST` documents in each, no two of them alike.
        tokens_per_query: Mean.
        tokens_per_document: Mean.
    """

    queries: Path
    bulk: Path
    tokens_per_query: float
    tokens_per_document: float


def write_mix(bundle: Path, *, document_tokens: int) -> MixBodies:
    """Draw queries of about 30 tokens, and documents of one length."""
    num_tokens = token_counter(bundle)
    queries = query_texts(num_tokens, _QUERY_TOKENS, _NUM_QUERIES)
    size = DOCUMENTS_PER_REQUEST
    documents = texts_of_length(_NUM_BULK_REQUESTS * size, document_tokens, num_tokens)
    lists = [documents[start : start + size] for start in range(0, len(documents), size)]
    return MixBodies(
        queries=write_bodies("mix-queries", queries),
        bulk=write_bodies("mix-bulk", lists),
        tokens_per_query=statistics.mean(map(num_tokens, queries)),
        tokens_per_document=statistics.mean(map(num_tokens, documents)),
    )


def measure_mix(
    server: RunningServer, bodies: MixBodies, *, cores: Sequence[int], seconds: int, num_rounds: int
) -> tuple[MixRound, ...]:
    """Send each stream alone, then both at once, round after round."""
    queries = Stream(
        url=server.url,
        bodies=bodies.queries,
        connections=1,
        seconds=seconds,
        pause_milliseconds=PAUSE_MILLISECONDS,
    )
    bulk = Stream(
        url=server.url, bodies=bodies.bulk, connections=_BULK_CONNECTIONS, seconds=seconds
    )

    def send(*streams: Stream) -> list[LoadFigures]:
        time.sleep(_SETTLE_SECONDS)
        return run_streams(streams, cores=cores)

    send(*(replace(stream, seconds=_WARM_UP_SECONDS) for stream in (queries, bulk)))
    rounds: list[MixRound] = []
    for _ in range(num_rounds):
        [queries_alone], [bulk_alone] = send(queries), send(bulk)
        queries_beside, bulk_beside = send(queries, bulk)
        rounds.append(
            MixRound(
                queries_alone=queries_alone,
                bulk_alone=bulk_alone,
                queries=queries_beside,
                bulk=bulk_beside,
            )
        )
    return tuple(rounds)
