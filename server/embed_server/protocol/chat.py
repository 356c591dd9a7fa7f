"""Conversations in a request: messages, and how a template makes texts of them."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from embed_runtime.errors import InputError
from embed_runtime.manifest import ChatTemplate
from embed_server import chat_worker
from embed_server.chat_worker import Task
from embed_server.config import ContentFormat
from embed_server.errors import SchemaError
from embed_server.protocol.parsing import Many, is_list, to_schema_error


class ContentPart(BaseModel):
    """A piece of a message; parts without a type are told by their fields."""

    type: str | None = None
    text: str | None = None

    def to_text(self) -> str:
        """Return its text.

        Raises:
            InputError: It is an image, or whatever else is no text.
        """
        if self.type not in (None, "text"):
            raise InputError(
                f"this model reads text only, not a part of type {self.type!r:.80};"
                " images, audio and video need a multimodal model"
            )
        if self.text is None:
            raise InputError("a part of a message needs a text; this model reads text only")
        return self.text


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: str | Annotated[Many[ContentPart], Field(min_length=1)]
    name: str | None = None

    def to_template(self) -> chat_worker.Message:
        """Give a template what it reads."""
        content = self.content
        message = chat_worker.Message(
            role=self.role,
            content=content
            if isinstance(content, str)
            else [{"type": "text", "text": part.to_text()} for part in content],
        )
        if self.name is not None:
            message["name"] = self.name
        return message


@dataclass(frozen=True, slots=True)
class Conversations:
    """One conversation or more; each becomes one text."""

    items: Sequence[Sequence[Message]]


_Conversation: TypeAlias = Annotated[Many[Message], Field(min_length=1)]
_ONE: TypeAdapter[list[Message]] = TypeAdapter(_Conversation)
_MANY: TypeAdapter[list[list[Message]]] = TypeAdapter(Many[_Conversation])


def check_conversations(value: object, path: str) -> Conversations:
    """Take one conversation, or a list of them.

    Args:
        value: What stands in the body.
        path: Where, for error messages.

    Raises:
        SchemaError: It is neither.
    """
    if not is_list(value):
        raise SchemaError(
            f"{path} must be a list of messages, or a list of such lists, not"
            f" {reprlib.repr(value)}",
            param=path,
        )
    try:
        if value and isinstance(value[0], list):
            return Conversations(_MANY.validate_python(value))
        return Conversations([_ONE.validate_python(value)])
    except ValidationError as error:
        raise to_schema_error(error, path) from None


def holds_messages(value: object) -> bool:
    """Tell by its first item whether a list has messages, not texts or token ids."""
    first = value
    while is_list(first) and first:
        first = first[0]
    return isinstance(first, dict) and first is not value


def _check_messages(value: object) -> Conversations:
    return check_conversations(value, "body.messages")


Messages: TypeAlias = Annotated[
    Conversations,
    PlainValidator(_check_messages, json_schema_input_type=list[_Conversation] | _Conversation),
]


class ChatFields(BaseModel):
    """What a chat template is told."""

    add_generation_prompt: bool = Field(
        False, description="Whether the template opens an answer behind the last message."
    )
    continue_final_message: bool = Field(
        False, description="Whether the text ends with the last message, left open."
    )
    chat_template: str | None = Field(
        None, description="A template of its own; only with --trust-request-chat-template."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="More variables for the template."
    )

    @model_validator(mode="after")
    def _ends_one_way(self) -> Self:
        if self.add_generation_prompt and self.continue_final_message:
            if "add_generation_prompt" in self.model_fields_set:
                raise ValueError(
                    "add_generation_prompt and continue_final_message cannot both be true"
                )
            self.add_generation_prompt = False
        return self

    @property
    def conversations(self) -> Conversations | None:
        """What a template must render first; None where there is nothing to render."""
        return None

    def to_task(
        self,
        conversations: Conversations,
        *,
        template: str | None,
        known: ChatTemplate | None,
        trust_request: bool,
        content_format: ContentFormat = "auto",
    ) -> Task:
        """Describe the rendering of conversations.

        Args:
            conversations: What to render.
            template: The model's, if it has one.
            known: What the manifest says about it.
            trust_request: Whether a template that came with the request may run.
            content_format: How it gets the contents of messages.

        Raises:
            InputError: There is no template, or one that is not trusted; or a part is no text.
        """
        variables = dict(self.chat_template_kwargs or {})
        given = variables.pop("chat_template", None) or self.chat_template
        if given and not trust_request:
            raise InputError(
                "a chat template came with the request, and this server trusts none; start it with"
                " --trust-request-chat-template, or leave chat_template out"
            )
        source = given or template
        if not isinstance(source, str):
            raise InputError(
                "this model has no chat template, which messages need; send texts as input"
            )
        special_tokens: Mapping[str, str] = known.special_tokens if known else {}
        return Task(
            template=source,
            conversations=[
                [message.to_template() for message in conversation]
                for conversation in conversations.items
            ],
            variables={
                **special_tokens,
                **variables,
                "add_generation_prompt": self.add_generation_prompt,
                "continue_final_message": self.continue_final_message,
            },
            continue_final_message=self.continue_final_message,
            wants_parts=None if content_format == "auto" else content_format == "openai",
        )
