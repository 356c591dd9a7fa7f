"""ONNX Runtime sessions, for the two backends that differ in where they run."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from embed_runtime.dialects import packed_inputs
from embed_runtime.engines import Availability, BuildSpec, BuiltEngine, LoadSpec, RunBatch
from embed_runtime.engines._cores import num_usable_cores
from embed_runtime.engines._library import MissingLibraryError, import_library, one_line
from embed_runtime.engines._signature import check_signature
from embed_runtime.errors import BundleError, EngineError
from embed_runtime.manifest import Device
from embed_runtime.types import Batch, FloatArray, OutputName

_FATAL = 4


def probe(extra: str, find_problem: Callable[[ModuleType], str]) -> Availability:
    """Say whether ONNX Runtime is here and, by `find_problem`, able to use the device."""
    try:
        library = import_library(("onnxruntime",), extra)
    except MissingLibraryError as error:
        return Availability(reason=str(error), producer="", can_build=False)
    reason = find_problem(library)
    # Nothing is compiled ahead: what can run can also be "built".
    return Availability(reason=reason, producer=producer(library), can_build=not reason)


def producer(library: ModuleType) -> str:
    """Name library and version."""
    return f"onnxruntime {library.__version__}"


def build(spec: BuildSpec, *, device: Device, extra: str) -> BuiltEngine:
    """Take the graph as it is: ONNX Runtime compiles it when it is loaded."""
    try:
        library = import_library(("onnxruntime",), extra)
    except MissingLibraryError as error:
        raise BundleError(str(error)) from error
    return BuiltEngine(
        file=spec.graph,
        files=(spec.graph, spec.weights),
        producer=producer(library),
        device=device,
    )


def load(
    spec: LoadSpec, *, provider: str, options: Mapping[str, str], extra: str
) -> "OnnxRuntimeEngine":
    """Open a session on one execution provider.

    Raises:
        BundleError: The library is missing, cannot read the graph, or has no such provider here.
    """
    path = spec.folder / spec.entry.file
    try:
        library = import_library(("onnxruntime",), extra)
    except MissingLibraryError as error:
        raise BundleError(f"{path}: {error}") from error
    no_provider = BundleError(f"{path}: {producer(library)} cannot use {provider} here")
    if provider not in library.get_available_providers():
        raise no_provider
    errors = _errors(library)
    try:
        session = library.InferenceSession(
            str(path), _session_options(library, spec), [(provider, dict(options))]
        )
    except errors as error:
        raise BundleError(f"{path}: {producer(library)} cannot load it: {_words(error)}") from error
    # One that cannot start is replaced by the CPU's, without a word.
    if provider not in session.get_providers():
        raise no_provider
    check_signature(
        spec,
        inputs=[one.name for one in session.get_inputs()],
        widths={one.name: one.shape[-1] for one in session.get_outputs()},
    )
    return OnnxRuntimeEngine(session, spec, errors)


class OnnxRuntimeEngine:
    """A session, and the inputs it takes."""

    num_streams = 1

    def __init__(self, session: Any, spec: LoadSpec, errors: tuple[type[Exception], ...]) -> None:
        self._session = session
        self._manifest = spec.manifest
        self._errors = errors
        self._input_names = [one.name for one in session.get_inputs()]
        self._is_on_cpu = spec.entry.device == "cpu"

    @property
    def run_express(self) -> RunBatch | None:
        """The same: calls share a session's threads, and its weights; see `Engine.run_express`."""
        return self.run if self._is_on_cpu else None

    def run(self, batch: Batch) -> dict[OutputName, FloatArray]:
        """Compute `batch.outputs`; see `Engine.run`."""
        if self._session is None:
            raise EngineError("the engine is closed")
        made = packed_inputs(batch, self._manifest)
        feeds = {name: made[name] for name in self._input_names}
        try:
            arrays = self._session.run(list(batch.outputs), feeds)
        except self._errors as error:
            raise EngineError(f"onnxruntime failed: {_words(error)}") from error
        return dict(zip(batch.outputs, arrays, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _session_options(library: ModuleType, spec: LoadSpec) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = spec.num_threads or num_usable_cores()
    # Threads that spin between calls take the cores from tokenizers and servers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Both keep memory for shapes seen before, and ours change with every batch. Measured on
    # MiniLM: 250 MB instead of 1,000, and not slower.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # What it would print is in the exceptions.
    options.log_severity_level = _FATAL
    return options


def _errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Collect what a session raises: its own exceptions have no common base."""
    own: ModuleType = library.capi.onnxruntime_pybind11_state
    members = vars(own).values()
    classes = [one for one in members if isinstance(one, type) and issubclass(one, Exception)]
    return (RuntimeError, ValueError, *classes)


def _words(error: Exception) -> str:
    """Leave out the "[ONNXRuntimeError] : 1 : FAIL : " in front."""
    return one_line(error).rpartition("[ONNXRuntimeError] : ")[2]
