"""text-embeddings-inference's endpoints, field by field: which values are taken, which refused."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

Fields = dict[str, tuple[list[Any], list[tuple[Any, int]]]]

LONG = "word " * 100
PROMPT_NAME: Fields = {"prompt_name": ([None, "query", "document"], [("nope", 422), (7, 422)])}
MODEL: Fields = {"model": ([None, "", "token_weights"], [("nope", 404), (7, 422)])}
CUT: Fields = {
    "truncate": ([None, True, False], [("maybe", 422)]),
    "truncation_direction": (["Left", "Right", "left"], [("Up", 422), (None, 422)]),
}

# Field: values that are taken; values that are refused, with the status.
EMBED_ALL: Fields = {
    **MODEL,
    **PROMPT_NAME,
    **CUT,
    "inputs": (
        ["a", "", ["a", "b"], [5, 6], [[5], [6, 7]], ["a", [5]]],
        [
            (None, 422),
            (7, 422),
            ([], 422),
            ([[]], 422),
            ([1.5], 422),
            ([True, "a"], 422),
            ({"text": "a"}, 422),
            ([-1], 422),
            ([10**6], 422),
            (LONG, 413),
            ([LONG], 413),
        ],
    ),
}
EMBED: Fields = {
    **EMBED_ALL,
    "normalize": ([True, False], [("maybe", 422), (None, 422)]),
    "dimensions": ([None, 8, 32], [(0, 422), (33, 422), (8.5, 422)]),
}
PAIR = {"source_sentence": "a", "sentences": ["b", "c"]}
SIMILARITY: Fields = {
    **MODEL,
    "inputs": (
        [PAIR],
        [
            (None, 422),
            ("a", 422),
            ({"source_sentence": "a"}, 422),
            (PAIR | {"sentences": []}, 422),
            (PAIR | {"sentences": [7]}, 422),
            (PAIR | {"sentences": [LONG]}, 413),
        ],
    ),
    "parameters": (
        [None, {}, {"truncate": True}, {"prompt_name": "query"}],
        [({"truncate": "maybe"}, 422), ({"prompt_name": "nope"}, 422), (7, 422)],
    ),
}
RERANK: Fields = {
    **MODEL,
    **CUT,
    "query": (["a", ""], [(None, 422), (7, 422), (LONG, 413)]),
    "texts": ([["a"], ["a", "b"]], [(None, 422), ([], 422), ("a", 422), ([7], 422), ([LONG], 413)]),
    "raw_scores": ([True, False], [("maybe", 422)]),
    "return_text": ([True, False], [("maybe", 422)]),
}
TOKENIZE: Fields = {
    **MODEL,
    **PROMPT_NAME,
    "inputs": (["a", ["a", ""], LONG], [(None, 422), ([], 422), ([7], 422)]),
    "add_special_tokens": ([True, False], [("maybe", 422)]),
}
DECODE: Fields = {
    **MODEL,
    "ids": (
        [[1], [[1], [2, 3]], [[]]],
        [(None, 422), ([], 422), ("a", 422), (["a"], 422), ([-1], 422), ([10**6], 422)],
    ),
    "skip_special_tokens": ([True, False], [("maybe", 422)]),
}
APIS: dict[str, tuple[str, dict[str, Any], Fields]] = {
    "/embed": ("TeiVectorBody", {"inputs": "a"}, EMBED),
    "/": ("TeiVectorBody", {"inputs": "a"}, EMBED),
    "/embed_all": ("TeiEmbedBody", {"inputs": "a"}, EMBED_ALL),
    "/embed_sparse": ("TeiEmbedBody", {"inputs": "a"}, EMBED_ALL),
    "/similarity": ("SimilarityBody", {"inputs": PAIR}, SIMILARITY),
    "/rerank": ("TeiRerankBody", {"query": "a", "texts": ["b"]}, RERANK),
    "/tokenize": ("TeiTokenizeBody", {"inputs": "a"}, TOKENIZE),
    "/decode": ("DecodeBody", {"ids": [1]}, DECODE),
}


@pytest.mark.parametrize("path", APIS)
def test_every_documented_field_is_in_the_table(
    documented_fields: Callable[[str], set[str]], path: str
) -> None:
    model, _, fields = APIS[path]
    assert documented_fields(model) == set(fields)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, (_, _, fields) in APIS.items() for name in fields]
)
def test_values_of_a_field(able_client: TestClient, path: str, name: str) -> None:
    _, body, fields = APIS[path]
    taken, not_taken = fields[name]
    for value in taken:
        response = able_client.post(path, json=body | {name: value})
        assert response.status_code == 200, (value, response.text)
    for value, status in not_taken:
        response = able_client.post(path, json=body | {name: value})
        assert response.status_code == status, (value, response.text)
        error = response.json()
        assert set(error) == {"error", "error_type"}
        assert error["error_type"] == "Validation"
