"""`/score` and `/rerank`, field by field: which values are taken, and which refused."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

Fields = dict[str, tuple[list[Any], list[tuple[Any, int, str | None]]]]

PART = {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}
IMAGE = {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


def items(
    name: str, *, one: bool = False, absent: str | None = None
) -> tuple[list[Any], list[tuple[Any, int, str | None]]]:
    """List what a side may be: one item, or a list of them."""
    first = f"body.{name}" if one else f"body.{name}.0"
    taken: list[Any] = ["a", "", {"text": "a"}, PART]
    refused: list[tuple[Any, int, str | None]] = [
        (7, 400, f"{first}.str"),
        (None, 400, absent or f"{first}.str"),
        ({}, 400, f"{first}.str"),
        ({"text": "a", **PART}, 400, f"{first}.str"),
        ({"content": []}, 400, f"{first}.str"),
        (IMAGE, 400, None),
        ("word " * 100, 400, "input_tokens"),
    ]
    if one:
        return taken, [*refused, (["a"], 400, f"{first}.str")]
    return [*taken, ["a"], ["a", PART]], [*refused, ([], 400, f"body.{name}")]


SHARED: Fields = {
    "model": ([None, "", "token_weights"], [(7, 400, "body.model"), ("nope", 404, "model")]),
    "user": ([None, "someone"], [(7, 400, "body.user")]),
    "request_id": ([None, "mine"], [(7, 400, "body.request_id")]),
    "priority": ([0, -5, "3"], [(2**63, 400, "body.priority"), (None, 400, "body.priority")]),
    "use_activation": ([None, True, False], [("maybe", 400, "body.use_activation")]),
    "truncate_prompt_tokens": (
        [None, -1, 3, 64],
        [(-2, 400, "body.truncate_prompt_tokens"), (0, 400, None), (65, 400, None)],
    ),
    "truncation_side": ([None, "left", "right"], [("up", 400, "body.truncation_side")]),
    "padding": ([None, "do_not_pad"], [("max_length", 400, "body.padding")]),
    "cache_salt": ([None, "a"], [("", 400, "cache_salt"), ("a@b", 400, "cache_salt")]),
    "mm_processor_kwargs": ([None, {}], [({"a": 1}, 400, "mm_processor_kwargs")]),
    "media_io_kwargs": ([None, {}], [({"image": {}}, 400, "media_io_kwargs")]),
    "normalize": ([], [(None, 400, "normalize"), (True, 400, "normalize")]),
    "task": (["embed", "token_embed"], [("sparse", 400, "body.task"), (None, 400, "body.task")]),
    "query_prompt_name": ([None, "query"], [("nope", 400, "prompt_name")]),
    "document_prompt_name": ([None, "document"], [("nope", 400, "prompt_name")]),
    "max_tokens_per_query": (
        [0, 1, 63],
        [(-1, 400, "body.max_tokens_per_query"), (64, 400, None)],
    ),
    "max_tokens_per_doc": (
        [0, 1, 63],
        [
            (-1, 400, "body.max_tokens_per_doc"),
            (64, 400, None),
            (None, 400, "body.max_tokens_per_doc"),
        ],
    ),
    "instruction": ([None, "find"], [(7, 400, "body.instruction")]),
}
SCORE: Fields = {
    **SHARED,
    "queries": items("queries", absent="body.queries"),
    "documents": items("documents", absent="body.queries"),
}
RERANK: Fields = {
    **SHARED,
    "query": items("query", one=True),
    "documents": items("documents"),
    "top_n": ([None, 0, 1, 9, "1"], [(-1, 400, "body.top_n"), (1.5, 400, "body.top_n")]),
    "return_documents": ([None, True, False], [("maybe", 400, "body.return_documents")]),
}
# Other names of the two sides; tests/server/test_score.py compares their scores.
SPELLINGS = {"items", "data_1", "data_2", "text_1", "text_2"}
APIS: dict[str, tuple[dict[str, Any], Fields]] = {
    "/score": ({"queries": "a text", "documents": ["the model", "a"]}, SCORE),
    "/v1/score": ({"queries": "a text", "documents": ["the model", "a"]}, SCORE),
    "/rerank": ({"query": "a text", "documents": ["the model"]}, RERANK),
    "/v1/rerank": ({"query": "a text", "documents": ["the model"]}, RERANK),
    "/v2/rerank": ({"query": "a text", "documents": ["the model"]}, RERANK),
}


def test_every_documented_field_is_in_a_table(
    documented_fields: Callable[[str], set[str]],
) -> None:
    assert documented_fields("ScoreRequest") == set(SCORE) | SPELLINGS
    assert documented_fields("RerankRequest") == set(RERANK)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, (_, fields) in APIS.items() for name in fields]
)
def test_values_of_a_field(compare_values: Callable[..., None], path: str, name: str) -> None:
    body, fields = APIS[path]
    taken, not_taken = fields[name]
    if path == "/v2/rerank":  # which cuts what is too long, as Cohere's does
        not_taken = [row for row in not_taken if row[2] != "input_tokens"]
    compare_values(path, body, name, taken, not_taken)


@pytest.mark.parametrize(
    ("left", "right", "num_scores"),
    [("a", "b", 1), ("a", ["b", "c"], 2), (["a", "b"], ["c", "d"], 2), (["a"], ["b", "c"], 2)],
)
def test_sides_that_can_be_paired(
    able_client: TestClient, left: object, right: object, num_scores: int
) -> None:
    answer = able_client.post("/score", json={"queries": left, "documents": right}).json()
    assert [item["index"] for item in answer["data"]] == list(range(num_scores))


@pytest.mark.parametrize("sides", [(["a", "b"], "c"), (["a", "b"], ["c", "d", "e"])])
def test_sides_that_cannot(refused: Callable[..., None], sides: tuple[object, object]) -> None:
    refused("/score", {"queries": sides[0], "documents": sides[1]}, 400, None)


@pytest.mark.parametrize("body", [{}, {"queries": "a"}, {"data_1": "a", "text_2": "b"}])
def test_a_side_is_missing(refused: Callable[..., None], body: dict[str, str]) -> None:
    refused("/score", body, 400, "body.queries")
