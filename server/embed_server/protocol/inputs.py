"""The `input` field of the OpenAI-style endpoints: a text, texts, token ids, or lists of them."""

import reprlib
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import PlainValidator

from embed_runtime.types import TextOrIds
from embed_server.errors import SchemaError
from embed_server.protocol.chat import Conversations, Message, check_conversations, holds_messages
from embed_server.protocol.parsing import is_list

ALLOWED = "a string, a list of strings, a list of token ids, or a list of lists of token ids"


def _check_inputs(value: object) -> Sequence[TextOrIds]:
    """Turn any of the four shapes into a list of inputs; collecting types runs at C speed."""
    if isinstance(value, str):
        return [value]
    if not is_list(value):
        raise SchemaError(f"input must be {ALLOWED}, not {reprlib.repr(value)}", param="body.input")
    kinds = set(map(type, value))
    if kinds <= {str}:
        return value
    if str in kinds:
        index = next(at for at, one in enumerate(value) if type(one) is not type(value[0]))
        raise _unlike_its_neighbours(f"body.input.{index}", value[index])
    if list in kinds:
        return [_check_ids(row, f"body.input.{index}") for index, row in enumerate(value)]
    return [_check_ids(value, "body.input")]


def _check_ids(row: object, path: str) -> list[int]:
    if not is_list(row):
        raise _unlike_its_neighbours(path, row)
    kinds = set(map(type, row))
    if kinds <= {int}:
        return row
    for index, token_id in enumerate(row):
        if not isinstance(token_id, int | float) or token_id != token_id // 1:
            raise SchemaError(
                f"input must be {ALLOWED}; {path}.{index} is {reprlib.repr(token_id)}",
                param=f"{path}.{index}",
            )
    return [int(token_id) for token_id in row]  # 1.0 and true are ids too, as the contract says


def _unlike_its_neighbours(path: str, value: object) -> SchemaError:
    return SchemaError(
        f"input must be {ALLOWED}; {path} is {reprlib.repr(value)}, unlike its neighbours",
        param=path,
    )


# In the words of a schema, for the documentation page.
_TextsOrIds: TypeAlias = str | list[str] | list[int] | list[list[int]]


def _check_inputs_or_messages(value: object) -> Sequence[TextOrIds] | Conversations:
    if holds_messages(value):
        return check_conversations(value, "body.input")
    return _check_inputs(value)


Inputs: TypeAlias = Annotated[
    Sequence[TextOrIds],
    PlainValidator(_check_inputs, json_schema_input_type=_TextsOrIds),
]
InputsOrMessages: TypeAlias = Annotated[
    Sequence[TextOrIds] | Conversations,
    PlainValidator(
        _check_inputs_or_messages,
        json_schema_input_type=_TextsOrIds | list[Message] | list[list[Message]],
    ),
]
