"""Fields that vLLM's inference endpoints share, and what they mean here."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from embed_runtime.errors import InputError, InputTooLongError
from embed_runtime.manifest import Manifest
from embed_runtime.types import Truncate
from embed_server.protocol.shared import check_limit

_MAX_SALT_CHARS = 128
_MAX_PRIORITY = 2**63 - 1


PRIORITY: Any = Field(
    0,
    ge=-_MAX_PRIORITY - 1,
    le=_MAX_PRIORITY,
    description="No effect: small requests go first, whatever they ask for.",
)


class RequestFields(BaseModel):
    """Unknown fields are ignored, as OpenAI-compatible servers do.

    Attributes:
        remedy: What cuts overlong inputs in this API, for error messages.
    """

    remedy: ClassVar[str] = "truncate_prompt_tokens=-1"

    model: str | None = Field(None, description="A served model name; empty for the only model.")
    user: str | None = Field(None, description="Ignored.")
    request_id: str | None = Field(None, description="Becomes part of the answer's id.")
    priority: int = PRIORITY
    use_activation: bool | None = Field(
        None, description="Scale vectors to unit length; by default, what the model does."
    )
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="Cut inputs to this many tokens, special tokens included; -1 for the model's "
        "maximum. Without it a longer input is an error.",
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="The side to cut from; special tokens stay on either side."
    )
    padding: Literal["do_not_pad"] | None = Field(None, description="Inputs are never padded.")
    cache_salt: str | None = Field(
        None,
        description="With it, nothing is taken from the server's result cache or left there.",
    )
    mm_processor_kwargs: dict[str, Any] | None = Field(
        None, description="For images; must be empty."
    )
    media_io_kwargs: dict[str, Any] | None = Field(None, description="For images; must be empty.")
    normalize: object = Field(None, description="Removed: use `use_activation`.", deprecated=True)

    def check(self) -> None:
        """Refuse fields that no longer exist, or that a text model has no use for.

        Raises:
            InputError: There is one; its `param` names it.
        """
        if "normalize" in self.model_fields_set:
            raise InputError("normalize was removed; use use_activation", param="normalize")
        for name in ("mm_processor_kwargs", "media_io_kwargs"):
            if getattr(self, name):
                raise InputError(
                    f"{name} is for images, and this model reads text only; leave it out",
                    param=name,
                )
        salt = self.cache_salt
        if salt is not None and not (
            0 < len(salt) <= _MAX_SALT_CHARS and set(salt).isdisjoint("@/\\\0")
        ):
            raise InputError(
                f"cache_salt must have 1 to {_MAX_SALT_CHARS} characters, none of them @, /, \\ or"
                " NUL",
                param="cache_salt",
            )

    def truncation(
        self, manifest: Manifest, *, default: Truncate = "NONE"
    ) -> tuple[Truncate, int | None]:
        """Say in the runtime's words where overlong inputs are cut, and at what length.

        Args:
            manifest: The model's.
            default: What becomes of them where the request does not say.

        Raises:
            InputError: The length is 0 or above the model's.
        """
        limit = self.truncate_prompt_tokens
        check_limit("truncate_prompt_tokens", limit, manifest)
        if limit is None and default == "NONE":
            return default, None
        side: Truncate = "START" if self.truncation_side == "left" else "END"
        return side, None if limit == -1 else limit


@contextmanager
def naming_the_remedy(remedy: str) -> Generator[None]:
    """Tell whoever sent an overlong input which field of this API cuts it."""
    try:
        yield
    except InputTooLongError as error:
        if error.index is None:  # all of them together: cutting does not help
            raise
        raise InputTooLongError(
            f"{error}; in this API: {remedy}",
            param=error.param,
            index=error.index,
        ) from error
