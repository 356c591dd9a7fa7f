"""`/tokenize` and `/decode` as text-embeddings-inference has them."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, StrictInt, StrictStr, WithJsonSchema

from embed_runtime.tokenizer import Tokenizer
from embed_server.protocol.examples import examples
from embed_server.protocol.parsing import Many, TeiBody, is_list
from embed_server.protocol.tei import MODEL, PROMPT_NAME

_TEXT: dict[str, Any] = {"type": "string"}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}


def _one_text_to_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _one_row_to_list(value: object) -> object:
    is_row = is_list(value) and bool(value) and not any(map(is_list, value))
    return [value] if is_row else value


Texts: TypeAlias = Annotated[
    Many[StrictStr],
    BeforeValidator(_one_text_to_list),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
Rows: TypeAlias = Annotated[
    Many[Many[StrictInt]],
    BeforeValidator(_one_row_to_list),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_IDS, {"type": "array", "items": _IDS}]}),
]


class TeiTokenizeBody(TeiBody):
    """Of `/tokenize`: known by `inputs`, where vLLM's has `prompt` or `messages`."""

    model_config = examples('{"inputs": ["a text", "another"]}')

    known_by = ("inputs", "prompt")

    inputs: Texts = Field(description="A text, or a list of them.")
    add_special_tokens: bool = Field(
        default=True, description="Whether texts get the tokenizer's first and last tokens."
    )
    prompt_name: str | None = PROMPT_NAME
    model: str | None = MODEL


class DecodeBody(TeiBody):
    """Of `/decode`."""

    model_config = examples('{"ids": [[1, 2, 3]]}')

    ids: Rows = Field(description="Token ids, or a list of lists of them.")
    skip_special_tokens: bool = Field(
        default=True, description="Whether special tokens are left out of the text."
    )
    model: str | None = MODEL


class SimpleToken(BaseModel):
    """One token; special ones stand nowhere in the text."""

    model_config = examples(
        '{"id": 3793, "text": "text", "special": false, "start": 2, "stop": 6}',
    )

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


TokenLists: TypeAlias = list[list[SimpleToken]]


def to_token_lists(body: TeiTokenizeBody, tokenizer: Tokenizer, prompt: str) -> object:
    """Give `TokenLists`.

    Raises:
        InputError: A text is not Unicode.
    """
    rows = [
        tokenizer.locate(
            tokenizer.put_in_front(prompt, text),
            add_special_tokens=body.add_special_tokens,
            index=index,
        )
        for index, text in enumerate(body.inputs)
    ]
    return [
        [
            {
                "id": token.id,
                "text": token.text,
                "special": token.start is None,
                "start": token.start,
                "stop": token.stop,
            }
            for token in row
        ]
        for row in rows
    ]


def to_texts(body: DecodeBody, tokenizer: Tokenizer) -> list[str]:
    """Give the texts of ids.

    Raises:
        InputError: An id is outside the vocabulary.
    """
    return [tokenizer.decode(row, skip_special_tokens=body.skip_special_tokens) for row in body.ids]
