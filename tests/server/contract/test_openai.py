"""`/v1/embeddings` and `/pooling`, field by field: which values are taken, and which refused."""

from collections.abc import Callable
from typing import Any

import pytest

Fields = dict[str, tuple[list[Any], list[tuple[Any, int, str | None]]]]

MESSAGE = {"role": "user", "content": "the model"}

# Field: values that are taken; values that are refused, with status and `param`.
SHARED: Fields = {
    "model": (
        [None, "", "token_weights", "tests/token_weights"],
        [(7, 400, "body.model"), ("nope", 404, "model")],
    ),
    "user": ([None, "someone"], [(7, 400, "body.user")]),
    "request_id": ([None, "mine"], [(7, 400, "body.request_id")]),
    "priority": (
        [0, -5, "3", 3.0, True, 2**63 - 1, -(2**63)],
        [(2**63, 400, "body.priority"), (1.5, 400, "body.priority"), (None, 400, "body.priority")],
    ),
    "use_activation": (
        [None, True, False, "yes", 1],
        [("maybe", 400, "body.use_activation"), (2, 400, "body.use_activation")],
    ),
    "truncate_prompt_tokens": (
        [None, -1, 3, 64, "5", 5.0],
        [
            (-2, 400, "body.truncate_prompt_tokens"),
            (1.5, 400, "body.truncate_prompt_tokens"),
            (0, 400, None),
            (65, 400, None),
        ],
    ),
    "truncation_side": (
        [None, "left", "right"],
        [("LEFT", 400, "body.truncation_side"), (1, 400, "body.truncation_side")],
    ),
    "padding": ([None, "do_not_pad"], [("max_length", 400, "body.padding")]),
    "cache_salt": (
        [None, "a", "a" * 128],
        [
            ("", 400, "cache_salt"),
            ("a" * 129, 400, "cache_salt"),
            ("a@b", 400, "cache_salt"),
            ("a/b", 400, "cache_salt"),
            ("a\\b", 400, "cache_salt"),
            ("a\0b", 400, "cache_salt"),
            (7, 400, "body.cache_salt"),
        ],
    ),
    "mm_processor_kwargs": (
        [None, {}],
        [({"a": 1}, 400, "mm_processor_kwargs"), (7, 400, "body.mm_processor_kwargs")],
    ),
    "media_io_kwargs": (
        [None, {}],
        [({"image": {}}, 400, "media_io_kwargs"), ([], 400, "body.media_io_kwargs")],
    ),
    "normalize": ([], [(None, 400, "normalize"), (True, 400, "normalize")]),
    "encoding_format": (
        ["float", "base64", "bytes", "bytes_only"],
        [("hex", 400, "body.encoding_format"), (None, 400, "body.encoding_format")],
    ),
    "embed_dtype": (
        ["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"],
        [("int8", 400, "body.embed_dtype"), (None, 400, "body.embed_dtype")],
    ),
    "endianness": (
        ["native", "big", "little"],
        [("middle", 400, "body.endianness"), (None, 400, "body.endianness")],
    ),
    "dimensions": (
        [None, 1, 8, 32, "8", 8.0, True],
        [(0, 400, None), (33, 400, None), (-1, 400, None), (8.5, 400, "body.dimensions")],
    ),
    "prompt_name": (
        [None, "query", "document"],
        [("nope", 400, "prompt_name"), ("", 400, "prompt_name"), (7, 400, "body.prompt_name")],
    ),
    "add_special_tokens": (
        [True, False, "no"],
        [(None, 400, "body.add_special_tokens"), (2, 400, "body.add_special_tokens")],
    ),
    "input": (
        ["a", "", ["a", "b"], ["1"], [5], [[5], [6, 7]], [5.0, True], [MESSAGE], [[MESSAGE]]],
        [
            (None, 400, "body.input"),
            (7, 400, "body.input"),
            ({"text": "a"}, 400, "body.input"),
            (["a", 5], 400, "body.input.1"),
            ([5, "a"], 400, "body.input.1"),
            ([5, 1.5], 400, "body.input.1"),
            ([[5], "a"], 400, "body.input.1"),
            ([], 400, None),
            ([[]], 400, None),
            ([-1], 400, None),
            ([10**6], 400, None),
            ("word " * 100, 400, "input_tokens"),
            ([5] * 65, 400, "input_tokens"),
            ([{"role": "user"}], 400, "body.input.0.content"),
        ],
    ),
    "messages": (
        [
            None,
            [MESSAGE],
            [[MESSAGE], [MESSAGE, MESSAGE]],
            [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": "x"}],
            [{"role": "developer", "content": [{"text": "a"}]}],
        ],
        [
            ([], 400, "body.messages"),
            ("a", 400, "body.messages"),
            ([[]], 400, "body.messages.0"),
            ([{"content": "a"}], 400, "body.messages.0.role"),
            ([{"role": "user", "content": []}], 400, "body.messages.0.content.str"),
            ([{"role": "user", "content": [{"type": "image_url"}]}], 400, None),
        ],
    ),
    "add_generation_prompt": ([True, False], [("x", 400, "body.add_generation_prompt")]),
    "continue_final_message": ([True, False], [("x", 400, "body.continue_final_message")]),
    "chat_template": ([None, "{{ messages }}"], [(7, 400, "body.chat_template")]),
    "chat_template_kwargs": ([None, {}, {"a": [1]}], [(7, 400, "body.chat_template_kwargs")]),
}
APIS: dict[str, tuple[str, Fields]] = {
    "/v1/embeddings": (
        "EmbeddingsRequest",
        {
            **SHARED,
            "pooling_task": (
                [None, "embed", "token_embed"],
                [("sparse", 400, "body.pooling_task"), (7, 400, "body.pooling_task")],
            ),
            "late_chunking": (
                [False],
                [("x", 400, "body.late_chunking"), (True, 400, None)],  # not with this model
            ),
            "late_chunking_params": ([None], [({"chunk_size": 4}, 400, "late_chunking_params")]),
        },
    ),
    "/pooling": (
        "PoolingRequest",
        {
            **SHARED,
            "task": (
                [None, "embed", "token_embed", "sparse"],
                [
                    ("classify", 400, "task"),
                    ("score", 400, "task"),
                    ("encode", 400, "task"),
                    ("nope", 400, "task"),
                    (7, 400, "body.task"),
                ],
            ),
        },
    ),
}


@pytest.mark.parametrize("path", APIS)
def test_every_documented_field_is_in_the_table(
    documented_fields: Callable[[str], set[str]], path: str
) -> None:
    model, fields = APIS[path]
    assert documented_fields(model) == set(fields)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, (_, fields) in APIS.items() for name in fields]
)
def test_values_of_a_field(compare_values: Callable[..., None], path: str, name: str) -> None:
    compare_values(path, {"input": "the model"}, name, *APIS[path][1][name])
