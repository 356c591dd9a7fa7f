"""Renders chat templates in a process of its own: `python -m embed_server.chat_worker`.

A template is a program, from the hub or from a caller. The sandbox keeps it from reaching anything;
the limits here end whatever it does too long or too large, and nothing but this process with it.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn, NotRequired, TypedDict

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SECONDS = 2
MAX_MEMORY_BYTES = 1 << 30
MAX_CHARS = 1 << 26
MAX_ERROR_CHARS = 1000

# Marks where the last message ends, to cut off what the template puts behind it.
_END = "<<embed-runtime:end of the final message>> "


class Message(TypedDict):
    """One message; parts have a `type` and a `text`."""

    role: str
    content: str | list[dict[str, str]]
    name: NotRequired[str]


class Task(TypedDict):
    """One line that comes in.

    Attributes:
        template: The source.
        conversations: Messages of each.
        variables: What else the template may read.
        continue_final_message: Whether each text ends with its last message.
        wants_parts: Whether it gets contents as lists of parts; None for what it reads itself.
    """

    template: str
    conversations: list[list[Message]]
    variables: dict[str, Any]
    continue_final_message: bool
    wants_parts: bool | None


def main() -> None:
    """Answer each line with one: `{"texts": [...]}`, or `{"error": "..."}`."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    # Who asks decides when to stop: by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        # Nobody catches this signal, so it ends the process even inside one long call.
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        reply = _answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()


def _answer(line: bytes) -> bytes:
    try:
        return json.dumps({"texts": render(json.loads(line))}).encode()
    except MemoryError:
        message = f"it needs more than {MAX_MEMORY_BYTES >> 20} MiB"
    except TemplateError as error:
        message = error.message or type(error).__name__
    except Exception as error:  # noqa: BLE001, a template can raise anything
        message = f"{type(error).__name__}: {error}"
    return json.dumps({"error": message[:MAX_ERROR_CHARS]}).encode()


def render(task: Task) -> list[str]:
    """Render conversations, one text for each.

    Raises:
        TemplateError: The template is wrong, or rejects the messages in its own words.
    """
    source = task["template"]
    template, reads_parts = compile_template(source)
    wants_parts = reads_parts if task["wants_parts"] is None else task["wants_parts"]
    texts: list[str] = []
    for conversation in task["conversations"]:
        messages = [_fit(message, source, wants_parts=wants_parts) for message in conversation]
        if task["continue_final_message"]:
            _mark_end(messages[-1])
        text = template.render(
            {"tools": None, "documents": None, **task["variables"]} | {"messages": messages}
        )
        texts.append(_cut(text) if task["continue_final_message"] else text)
    if sum(map(len, texts)) > MAX_CHARS:
        raise TemplateError(f"it makes more than {MAX_CHARS} characters")
    return texts


def _fit(message: Message, source: str, *, wants_parts: bool) -> Message:
    """Put a message into the form that a template reads."""
    content = message["content"]
    if wants_parts and isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif not wants_parts and isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    role = message["role"]
    if role == "developer" and role not in source:
        role = "system"
    return {**message, "role": role, "content": content}


def _mark_end(message: Message) -> None:
    """Put the mark behind a message's own text."""
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + _END
    else:
        *others, last = content
        message["content"] = [*others, {**last, "text": last["text"] + _END}]


def _cut(text: str) -> str:
    """Drop the mark and all behind it."""
    mark = _END.rstrip()
    kept, found, rest = text.rpartition(mark)
    if not found:
        raise TemplateError("it leaves out the end of the final message, which cannot be continued")
    kept = kept.replace(mark, "")
    # Where the mark lost its space, the template strips messages; then this one too.
    return kept if rest.startswith(" ") else kept.rstrip()


class _Generation(Extension):
    """`{% generation %}` marks what a model said; for training only, here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012, the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Take the block's inside as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


@lru_cache(maxsize=16)
def compile_template(source: str) -> tuple[Template, bool]:
    """Compile a template as transformers does, and tell whether it reads contents part by part.

    Raises:
        TemplateError: It is none.
    """
    environment = _environment()
    tree = environment.parse(source)
    contents = set(_content_names(tree))
    loops = tree.find_all(nodes.For)
    wants_parts = any(_is_content(loop.iter, contents) for loop in loops)
    names = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment.from_string(source, globals=names), wants_parts


def read_variables(source: str) -> set[str]:
    """List the variables that a template reads and does not set."""
    return meta.find_undeclared_variables(_environment().parse(source))


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    return environment


def _content_names(tree: nodes.Template) -> Iterator[str]:
    """List the variables that a template sets to a message's content."""
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, set()):
            yield assignment.target.name


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    """Tell whether an expression is `message.content`, or a variable set to that."""
    while isinstance(node, nodes.Filter) and node.node is not None:
        node = node.node
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Name) and node.name in names


if __name__ == "__main__":
    main()
