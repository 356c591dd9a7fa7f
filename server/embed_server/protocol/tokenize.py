"""`/tokenize` and `/detokenize`: vLLM's requests and answers."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from embed_server.errors import SchemaError
from embed_server.protocol.chat import ChatFields, Conversations, Messages
from embed_server.protocol.examples import examples
from embed_server.protocol.parsing import Many

_MAX_ID = 2**63 - 1


class TokenizeRequest(ChatFields):
    """A text, or a conversation; nothing is cut. Unknown fields are ignored."""

    model_config = examples('{"prompt": "a text", "return_token_strs": true}')

    model: str | None = Field(None, description="A served model name; empty for the only model.")
    prompt: str | None = Field(None, description="The text.")
    messages: Messages | None = Field(None, description="One conversation, instead of `prompt`.")
    add_generation_prompt: bool = Field(
        True,
        description="Whether the template opens an answer behind the last message; by default it "
        "does, unless that message is continued.",
    )
    add_special_tokens: bool = Field(
        True, description="Add the tokenizer's first and last tokens; by default not to messages."
    )
    return_token_strs: bool | None = Field(False, description="Answer with tokens as texts too.")

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if self.prompt is None and self.messages is None:
            raise SchemaError(
                "prompt is required, a text; or messages instead", param="body.prompt"
            )
        if self.messages is not None and len(self.messages.items) != 1:
            raise SchemaError(
                f"messages must be one conversation, not {len(self.messages.items)}",
                param="body.messages",
            )
        return self

    @property
    def conversations(self) -> Conversations | None:
        """What a template must render first; None for a text."""
        return self.messages

    @property
    def adds_tokens(self) -> bool:
        """Whether the tokenizer's first and last tokens are added."""
        if self.messages is not None and "add_special_tokens" not in self.model_fields_set:
            return False
        return self.add_special_tokens


class TokenizeResponse(BaseModel):
    """Token ids, and what the model takes."""

    model_config = examples(
        """{"count": 4, "max_model_len": 256, "tokens": [101, 1037, 3793, 102],
        "token_strs": ["[CLS]", "a", "text", "[SEP]"]}""",
    )

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(BaseModel):
    """Token ids. Unknown fields are ignored."""

    model_config = examples('{"tokens": [1, 2, 3]}')

    model: str | None = Field(None, description="A served model name; empty for the only model.")
    tokens: Many[Annotated[int, Field(ge=0, le=_MAX_ID)]] = Field(description="Token ids.")


class DetokenizeResponse(BaseModel):
    """Their text, special tokens included."""

    model_config = examples('{"prompt": "[CLS] a text [SEP]"}')

    prompt: str
