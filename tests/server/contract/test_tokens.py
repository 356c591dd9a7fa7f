"""`/tokenize` and `/detokenize` in vLLM's shape, field by field: what is taken, what refused."""

from collections.abc import Callable
from typing import Any

import pytest

Fields = dict[str, tuple[list[Any], list[tuple[Any, int, str | None]]]]

MESSAGE = {"role": "user", "content": "the model"}
MODEL: Fields = {
    "model": ([None, "", "token_weights"], [(7, 400, "body.model"), ("nope", 404, "model")])
}
TOKENIZE: Fields = {
    **MODEL,
    "prompt": (
        ["a", "", "word " * 100],
        [(7, 400, "body.prompt"), (["a"], 400, "body.prompt"), (None, 400, "body.prompt")],
    ),
    "messages": (
        [None, [MESSAGE]],
        [
            ([], 400, "body.messages"),
            ("a", 400, "body.messages"),
            ([[MESSAGE], [MESSAGE]], 400, "body.messages"),
            ([{"role": "user"}], 400, "body.messages.0.content"),
        ],
    ),
    "add_special_tokens": ([True, False], [("maybe", 400, "body.add_special_tokens")]),
    "return_token_strs": ([None, True], [("maybe", 400, "body.return_token_strs")]),
    "add_generation_prompt": ([True, False], [("x", 400, "body.add_generation_prompt")]),
    "continue_final_message": ([True, False], [("x", 400, "body.continue_final_message")]),
    "chat_template": ([None], [(7, 400, "body.chat_template")]),
    "chat_template_kwargs": ([None, {}], [(7, 400, "body.chat_template_kwargs")]),
}
DETOKENIZE: Fields = {
    **MODEL,
    "tokens": (
        [[], [1, 2], [1.0, True]],
        [
            (None, 400, "body.tokens"),
            ("a", 400, "body.tokens"),
            ([-1], 400, "body.tokens.0"),
            ([2**63], 400, "body.tokens.0"),
            ([10**6], 400, None),
        ],
    ),
}
APIS: dict[str, tuple[str, dict[str, Any], Fields]] = {
    "/tokenize": ("TokenizeRequest", {"prompt": "a"}, TOKENIZE),
    "/detokenize": ("DetokenizeRequest", {"tokens": [1]}, DETOKENIZE),
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
def test_values_of_a_field(compare_values: Callable[..., None], path: str, name: str) -> None:
    _, body, fields = APIS[path]
    compare_values(path, body, name, *fields[name])
