"""`ServedModel`: one open bundle under the names that requests call it by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from embed_runtime.bundle import verify_files
from embed_runtime.certificate import Certificate, read_certificate
from embed_runtime.errors import ClosedError, EngineError, OverloadedError
from embed_runtime.manifest import CERTIFICATE_NAME, Manifest
from embed_runtime.runtime import Runtime
from embed_runtime.types import EmbedRequest, EmbedResult


@dataclass(slots=True, kw_only=True)
class ServedModel:
    """One bundle, ready to answer.

    Attributes:
        runtime: Computes the vectors.
        names: What requests may call the model by; the first is reported back.
        certificate: The bundle's, if it has one.
        chat_template: The operator's, or else the bundle's, if it has one.
        engine_failed: Whether the engine failed, or was gone, since `is_healthy` last saw it work.
    """

    runtime: Runtime
    names: tuple[str, ...]
    certificate: Certificate | None = None
    chat_template: str | None = None
    engine_failed: bool = field(default=False, init=False)

    @classmethod
    def of(
        cls, runtime: Runtime, names: Sequence[str] = (), *, chat_template: str | None = None
    ) -> Self:
        """Name an open bundle; by default after its folder and its model's id.

        Args:
            runtime: The bundle.
            names: Its names.
            chat_template: A template instead of the bundle's own.

        Raises:
            BundleError: Its certificate or its chat template is damaged.
        """
        if chat_template is None:
            chat_template = read_chat_template(runtime.folder, runtime.manifest)
        has_certificate = (runtime.folder / CERTIFICATE_NAME).exists()
        return cls(
            runtime=runtime,
            names=tuple(names) or default_names(runtime.folder, runtime.manifest.model.id),
            certificate=read_certificate(runtime.folder) if has_certificate else None,
            chat_template=chat_template,
        )

    @property
    def name(self) -> str:
        """What answers, errors and metrics call it."""
        return self.names[0]

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.runtime.manifest

    async def run(self, work: EmbedRequest) -> EmbedResult:
        """Compute vectors, and remember where the engine could not."""
        try:
            return await self.runtime.asubmit(work)
        except (EngineError, ClosedError):
            self.engine_failed = True
            raise

    async def is_healthy(self) -> bool:
        """Tell whether the engine works: as long as it never failed, and then by a new try."""
        if self.engine_failed:
            try:
                # Other answers, and this one without that, may be kept ones that need no engine.
                await self.run(EmbedRequest(inputs=["health"], use_cache=False))
            except (EngineError, ClosedError):
                return False
            except OverloadedError:
                return True  # a full queue says nothing against the engine
            self.engine_failed = False
        return True


def default_names(folder: Path, model_id: str) -> tuple[str, ...]:
    """List what a model answers to: its bundle's folder, the last part of its id, the whole id."""
    return tuple(dict.fromkeys((folder.resolve().name, model_id.rpartition("/")[2], model_id)))


def read_chat_template(folder: Path, manifest: Manifest) -> str | None:
    """Read a bundle's chat template; None where it has none.

    Raises:
        BundleError: The file is not the one that the manifest describes.
    """
    if manifest.chat_template is None:
        return None
    verify_files(folder, manifest, [manifest.chat_template.file])
    return (folder / manifest.chat_template.file).read_text(encoding="utf-8")
