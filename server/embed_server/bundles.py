"""The bundles of one server: how the command line names them, and how they are opened."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import BundleError, EmbedError, InputError
from embed_runtime.runtime import Runtime
from embed_server.served_model import ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSource:
    """Where a bundle lies and what requests call it.

    Attributes:
        path: A bundle, or one engine file in it.
        names: Its names; none for those that its folder and its model have.
    """

    path: Path
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH`, `NAME=PATH` or `NAME,ALIAS=PATH`.

        Raises:
            InputError: A name or the path is empty.
        """
        names, equals, path = text.rpartition("=")
        if not equals or Path(text).exists():
            return cls(path=Path(text))
        if not path or not all(names.split(",")):
            raise InputError(f"{text!r} is neither a path nor NAME=PATH nor NAME,ALIAS=PATH")
        return cls(path=Path(path), names=tuple(names.split(",")))


def name_sources(
    sources: Sequence[BundleSource], served_model_name: Sequence[str]
) -> Sequence[BundleSource]:
    """Give the only bundle the names that `--served-model-name` lists.

    Raises:
        InputError: There are several bundles, or it has names already.
    """
    if not served_model_name:
        return sources
    if len(sources) > 1 or sources[0].names:
        raise InputError(
            "--served-model-name is for one bundle given as PATH; "
            "name several bundles with NAME=PATH or NAME,ALIAS=PATH",
            param="served_model_name",
        )
    return [BundleSource(path=sources[0].path, names=tuple(served_model_name))]


def open_models(
    sources: Sequence[BundleSource],
    *,
    engine: str | None,
    runtime_config: RuntimeConfig,
    chat_template: str | None,
    closing: ExitStack,
) -> tuple[ServedModel, ...]:
    """Open every bundle; each is closed with `closing`.

    Args:
        sources: Where they lie.
        engine: Which of their engines to run.
        runtime_config: Limits and threads.
        chat_template: One for the only bundle, instead of its own.
        closing: Whose end is theirs.

    Raises:
        InputError: There is a chat template, and more than one bundle.
        BundleError: One of them cannot be served here; the message says which.
    """
    if chat_template is not None and len(sources) > 1:
        raise InputError(
            "--chat-template is for one bundle; the templates of several come with them",
            param="chat_template",
        )
    models: list[ServedModel] = []
    for source in sources:
        try:
            runtime = Runtime(source.path, config=runtime_config, engine=engine)
            closing.enter_context(runtime)
            models.append(ServedModel.of(runtime, source.names, chat_template=chat_template))
        except EmbedError as error:
            raise BundleError(f"cannot serve {source.path}: {error}") from error
    return tuple(models)
