"""Chat templates that the command line names: read, and checked before anything is served."""

from pathlib import Path

from jinja2 import TemplateError

from embed_runtime.errors import InputError
from embed_runtime.manifest import ChatTemplate
from embed_server.chat_worker import compile_template, read_variables

# What no path has, and every template.
_ONLY_IN_TEMPLATES = frozenset("{}\n")


def open_chat_template(text: str) -> str:
    """Read a template from a file, or take the text for the template itself.

    Raises:
        InputError: There is no such file, or what it holds is no template.
    """
    if _ONLY_IN_TEMPLATES.isdisjoint(text):
        source, name = _read(Path(text)), text
    else:
        source, name = text, "the text"
    try:
        compile_template(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            f"--chat-template: {name} is no template of Jinja: {error.message or error}"
            + (f" (line {line})" if line else ""),
            param="chat_template",
        ) from error
    return source


def check_special_tokens(source: str, known: ChatTemplate | None) -> None:
    """Refuse a template that reads special tokens of a bundle that does not tell them.

    Args:
        source: The template.
        known: What the bundle says of its own template, and of special tokens with it.

    Raises:
        InputError: It reads one; it would get nothing in its place.
    """
    names = sorted(name for name in read_variables(source) if name.endswith("_token"))
    if names and known is None:
        raise InputError(
            f"--chat-template reads {', '.join(names)}, which a bundle without a chat template of"
            " its own does not tell; write the token's text instead",
            param="chat_template",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--chat-template: cannot read {path}: {reason}; it takes a file, or a template, which"
            " has braces in it",
            param="chat_template",
        ) from error
