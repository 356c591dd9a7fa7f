"""`/v2/embed`, field by field: which values are taken, and which refused."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

PATH = "/v2/embed"
TEXT = {"content": [{"type": "text", "text": "a"}]}
IMAGE = {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}

# Field: values that are taken; values that are refused, with status and `param`.
FIELDS: dict[str, tuple[list[Any], list[tuple[Any, int, str | None]]]] = {
    "model": ([None, "", "token_weights"], [(7, 400, "body.model"), ("nope", 404, "model")]),
    "input_type": (
        [None, "query", "document", "search_query", "search_document"],
        [("nope", 400, None), ("Query", 400, None), (7, 400, "body.input_type")],
    ),
    "texts": (
        [["a"], ["", "b"]],
        [
            (None, 400, "body"),
            ([], 400, "body"),
            ("a", 400, "body.texts"),
            ([7], 400, "body.texts.0"),
            (["a", None], 400, "body.texts.1"),
        ],
    ),
    # Beside `texts` both are one too many; without it, see below.
    "images": ([None], [(["data:,"], 400, "body"), ([], 400, "body"), ("a", 400, "body.images")]),
    "inputs": ([None], [([TEXT], 400, "body"), ([], 400, "body"), ("a", 400, "body.inputs")]),
    "embedding_types": (
        [[], ["float"], ["float", "base64", "binary", "ubinary"], ["float", "float"]],
        [(["hex"], 400, "body.embedding_types.0"), (None, 400, "body.embedding_types")],
    ),
    "output_dimension": (
        [None, 8, 32, "8"],
        [(0, 400, None), (33, 400, None), (8.5, 400, "body.output_dimension")],
    ),
    "truncate": (
        ["END", "START", "NONE"],
        [("end", 400, "body.truncate"), (None, 400, "body.truncate")],
    ),
    "max_tokens": (
        [None, -1, 3, 64],
        [
            (0, 400, None),
            (65, 400, "truncate_prompt_tokens"),
            (-2, 400, "body.max_tokens"),
            (1.5, 400, "body.max_tokens"),
        ],
    ),
    "priority": ([0, -5, "3"], [(2**63, 400, "body.priority"), (None, 400, "body.priority")]),
}


def test_every_documented_field_is_in_the_table(
    documented_fields: Callable[[str], set[str]],
) -> None:
    assert documented_fields("EmbedBody") == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_values_of_a_field(compare_values: Callable[..., None], name: str) -> None:
    compare_values(PATH, {"texts": ["the model"]}, name, *FIELDS[name])


MISMATCHES: list[tuple[dict[str, Any], str | None]] = [
    ({}, "body"),
    ({"texts": None, "images": None}, "body"),
    ({"images": ["data:,"]}, None),
    ({"inputs": [IMAGE]}, None),
    ({"inputs": [TEXT, IMAGE]}, None),
    ({"inputs": [{"content": []}]}, "body.inputs.0.content"),
    ({"inputs": [{"content": [{"type": "text"}]}]}, "body.inputs.0.content.0"),
    ({"inputs": [{"content": [{"type": "video"}]}]}, "body.inputs.0.content.0.type"),
    ({"texts": ["a"], "embedding_types": ["binary"], "output_dimension": 4}, None),
    ({"texts": ["a"], "embedding_types": ["ubinary"], "output_dimension": 12}, None),
    ({"texts": ["word " * 100], "truncate": "NONE"}, "input_tokens"),
    ({"texts": ["a b c d"], "truncate": "NONE", "max_tokens": 3}, "input_tokens"),
]


@pytest.mark.parametrize(("body", "param"), MISMATCHES)
def test_what_does_not_go_together(
    refused: Callable[..., None], body: dict[str, Any], param: str | None
) -> None:
    refused(PATH, body, 400, param)


@pytest.mark.parametrize(
    ("fields", "num_tokens"),
    [
        ({}, 64),
        ({"truncate": "END"}, 64),
        ({"truncate": "START"}, 64),
        ({"truncate": "END", "max_tokens": 5}, 5),
        ({"truncate": "START", "max_tokens": -1}, 64),
    ],
)
def test_long_texts_are_cut_and_billed_as_cut(
    able_client: TestClient, fields: dict[str, Any], num_tokens: int
) -> None:
    answer = able_client.post(PATH, json={"texts": ["word " * 100], **fields}).json()
    assert answer["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": num_tokens, "image_tokens": 0},
    }
    assert answer["texts"] == ["word " * 100]
