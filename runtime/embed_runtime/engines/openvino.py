"""OpenVINO on x86 CPUs: the fastest of the CPU engines, twice so in bfloat16."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from math import gcd
from threading import Lock
from types import ModuleType
from typing import Any

from embed_runtime.dialects import packed_inputs, round_up
from embed_runtime.engines import (
    Availability,
    Backend,
    BuildSpec,
    BuiltEngine,
    Engine,
    LoadSpec,
    RunBatch,
)
from embed_runtime.engines._cores import num_usable_cores
from embed_runtime.engines._library import MissingLibraryError, import_library, one_line
from embed_runtime.engines._signature import check_signature
from embed_runtime.errors import BundleError, EngineError
from embed_runtime.types import TOKEN_OUTPUTS, Batch, FloatArray, OutputName, Precision

_EXTRA = "embed-runtime[openvino]"
_DEVICE = "CPU"
# What a CPU lists among its capabilities when it computes in these without emulation.
_CAPABILITIES: dict[Precision, str] = {"fp16": "FP16", "bf16": "BF16"}
# Fewest channels of a token that share a scale where the library makes int8 of activations: smaller
# groups are slower.
_SMALLEST_GROUP = 128
# Weights up to this size are held once more for each way they are computed: as many bytes as a
# server may need unannounced, the moment that batches first meet.
_MAX_COPIED_BYTES = 512 << 20
# Hidden size up to which two streams pay: all-MiniLM-L6-v2 (384) gains a tenth, a BERT of 768 loses
# more than that.
_LARGEST_STREAMED = 512
# Marks a conversion that makes a weight of what is stored: no pass computes it beforehand
# (openvino, decompression.hpp: the attribute's name and version).
_DECOMPRESSION = "decompression_0"
_TYPES: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_NARROW_TYPES = ("f16", "bf16")


class OpenVinoEngine:
    """A graph that is compiled for all threads, and once more for streams where they pay.

    A batch that comes alone gets all threads. Batches that come together get a stream each, with a
    share of the threads: those of one batch wait for each other at every node, and all but one of
    them while Python makes the next batch. A small one beside those gets a single thread of its
    own, which waits for nobody, where several would wait for each other behind all the others.
    Streams have weights of their own, so they are opened when they are first needed.
    """

    def __init__(self, compile_graph: Callable[[int, int], Any], spec: LoadSpec) -> None:
        """Compile the graph.

        Args:
            compile_graph: Does it, for a number of streams and one of threads.
            spec: What is loaded.

        Raises:
            BundleError: Graph and manifest disagree.
        """
        self._num_threads = _num_threads(spec)
        compiled = compile_graph(1, self._num_threads)
        self._input_names = [port.get_any_name() for port in compiled.inputs]
        # A port keeps the names of all nodes that were folded into it.
        ports = enumerate(compiled.outputs)
        self._outputs = {name: index for index, port in ports for name in port.get_names()}
        widths = {name: _width(compiled.outputs[at]) for name, at in self._outputs.items()}
        check_signature(spec, inputs=self._input_names, widths=widths)
        self._manifest = spec.manifest
        # It prepares products of int8 for each number of tokens anew: rounding up gains 4 % with
        # all-MiniLM-L6-v2, and nothing in the other precisions (benchmarks/LOG.md).
        self._is_int8 = spec.entry.precision == "int8"
        # Each stream has as many threads as the others.
        self.num_streams = gcd(spec.num_streams or _best_streams(spec), self._num_threads)
        self._has_express = _may_copy(spec)
        self._compile_graph: Callable[[int, int], Any] | None = compile_graph
        self._compiles = Lock()
        self._wide = compiled.create_infer_request()
        self._express: Any = None
        self._lock = Lock()
        # Both are guarded by the lock.
        self._num_running = 0
        self._narrow: list[Any] | None = None

    @property
    def run_express(self) -> RunBatch | None:
        """Compute a small batch in a thread of its own; see `Engine.run_express`."""
        return self._run_express if self._has_express else None

    def run(self, batch: Batch) -> dict[OutputName, FloatArray]:
        """Compute `batch.outputs`; see `Engine.run`."""
        return self._run(batch, self._lend_request)

    def close(self) -> None:
        """Free the requests, and the graphs with them."""
        self._wide = self._narrow = self._express = self._compile_graph = None

    def _run_express(self, batch: Batch) -> dict[OutputName, FloatArray]:
        return self._run(batch, self._lend_express)

    def _run(
        self, batch: Batch, lend: Callable[[], AbstractContextManager[Any]]
    ) -> dict[OutputName, FloatArray]:
        if self._compile_graph is None:
            raise EngineError("the engine is closed")
        made = packed_inputs(batch, self._manifest)
        if self._is_int8:
            made = round_up(made)
        feeds = {name: made[name] for name in self._input_names}
        try:
            with lend() as request:
                request.infer(feeds, share_inputs=True, share_outputs=True)
                # The request writes its next results into the same memory.
                return {
                    name: self._read(request, name)[: _num_rows(batch, name)].copy()
                    for name in batch.outputs
                }
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {one_line(error)}") from error

    def _read(self, request: Any, name: OutputName) -> FloatArray:
        values: FloatArray = request.get_output_tensor(self._outputs[name]).data
        return values

    @contextmanager
    def _lend_request(self) -> Generator[Any]:
        """Lend the request with all threads while nobody else has one, else one with a stream."""
        with self._lock:
            request = self._take_narrow() if self._num_running else self._wide
            self._num_running += 1
        try:
            yield request
        finally:
            with self._lock:
                self._num_running -= 1
                if request is not self._wide and self._narrow is not None:
                    self._narrow.append(request)

    def _take_narrow(self) -> Any:
        if self._narrow is None:
            compiled = self._compile(self.num_streams, self._num_threads)
            self._narrow = [compiled.create_infer_request() for _ in range(self.num_streams)]
        return self._narrow.pop()

    @contextmanager
    def _lend_express(self) -> Generator[Any]:
        """Lend the request with a single thread, which one caller at a time asks for."""
        if self._express is None:
            self._express = self._compile(1, 1).create_infer_request()
        yield self._express

    def _compile(self, num_streams: int, num_threads: int) -> Any:
        """Compile the graph once more; only one thread at a time may."""
        assert self._compile_graph is not None
        with self._compiles:
            return self._compile_graph(num_streams, num_threads)


def _num_rows(batch: Batch, name: OutputName) -> int:
    return batch.num_tokens if name in TOKEN_OUTPUTS else batch.num_rows


def _best_streams(spec: LoadSpec) -> int:
    return 2 if spec.manifest.hidden_size <= _LARGEST_STREAMED and _may_copy(spec) else 1


def _may_copy(spec: LoadSpec) -> bool:
    return (
        sum((spec.folder / name).stat().st_size for name in spec.entry.files) <= _MAX_COPIED_BYTES
    )


def _num_threads(spec: LoadSpec) -> int:
    return spec.num_threads or num_usable_cores()


def _precision(precision: Precision) -> Precision | None:
    """Keep 16 bits where the CPU computes in them, else float32; int8 stays int8.

    The library then rounds activations to int8 by itself, where the CPU has instructions for that.
    """
    if precision == "int8":
        return precision
    try:
        return precision if _supports(_import(), precision) else "fp32"
    except (MissingLibraryError, RuntimeError):
        return "fp32"


def _probe() -> Availability:
    try:
        library = _import()
    except MissingLibraryError as error:
        return Availability(reason=str(error), producer="", can_build=False)
    try:
        has_cpu = _DEVICE in _core(library.Core).available_devices
    except RuntimeError as error:
        reason = f"openvino cannot start: {one_line(error)}"
    else:
        reason = "" if has_cpu else "openvino has no plugin for this CPU; use onnxruntime"
    return Availability(reason=reason, producer=_producer(library), can_build=not reason)


def _build(spec: BuildSpec) -> BuiltEngine:
    """Take the graph as it is: OpenVINO compiles it for the CPU it is loaded on."""
    try:
        producer = _producer(_import())
    except MissingLibraryError as error:
        raise BundleError(str(error)) from error
    return BuiltEngine(
        file=spec.graph, files=(spec.graph, spec.weights), producer=producer, device="cpu"
    )


def _load(spec: LoadSpec) -> Engine:
    path, precision = spec.folder / spec.entry.file, spec.entry.precision
    # What stands between products of int8 is fast in 16 bits.
    floats: Precision = "bf16" if precision == "int8" else precision
    try:
        library = _import()
        settings: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Two processes that pin their threads pin them to the same cores.
            "ENABLE_CPU_PINNING": False,
            # Said even for float32: the default is bfloat16 where the CPU has matrix units for it.
            "INFERENCE_PRECISION_HINT": (_TYPES[floats] if _supports(library, floats) else "f32"),
        }
    except MissingLibraryError as error:
        raise BundleError(f"{path}: {error}") from error
    try:
        # Left to itself, the library offers the file to the parser of every format it knows.
        parser = library.frontend.FrontEndManager().load_by_framework("onnx")
        graph = parser.convert(parser.load(str(path)))
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = (
            _group_size(graph) if precision == "int8" else 0
        )
        if settings["INFERENCE_PRECISION_HINT"] != _TYPES["fp32"]:
            _keep_weights_narrow(graph)

        def compile_graph(num_streams: int, num_threads: int) -> Any:
            streams = {"NUM_STREAMS": num_streams, "INFERENCE_NUM_THREADS": num_threads}
            return _core(library.Core).compile_model(graph, _DEVICE, settings | streams)

        return OpenVinoEngine(compile_graph, spec)
    except _errors(library) as error:
        raise BundleError(
            f"{path}: {_producer(library)} cannot load it: {one_line(error)}"
        ) from error


def _keep_weights_narrow(graph: Any) -> None:
    """Have weights of 16 bits stay that while the graph is compiled.

    Else the library widens them to float32 first, and rounds them back to what they were: a model
    of 600 million parameters takes 3,627 MiB instead of 1,946, and four times as long to compile.
    Where products are computed in float32, weights that are wide before are faster
    (benchmarks/LOG.md).
    """
    for node in graph.get_ops():
        if node.get_type_name() == "Convert" and _is_narrow_weight(node.input_value(0)):
            node.get_rt_info()[_DECOMPRESSION] = ""


def _group_size(graph: Any) -> int:
    """Find the most channels that can share a scale in every product.

    Each group of channels is multiplied and scaled by itself, so few of them are fast: with 384
    channels instead of 128, all-MiniLM-L6-v2 takes 5 % less time, with 768 a BERT of that size 8 %
    (benchmarks/LOG.md). A product whose channels do not divide into groups is left to floats.
    """
    shapes = (node.input(1).get_partial_shape() for node in graph.get_ops() if _is_product(node))
    widths = [shape[0].get_length() for shape in shapes if shape.is_static and len(shape) == 2]
    return max(gcd(*widths), _SMALLEST_GROUP)


def _is_narrow_weight(value: Any) -> bool:
    """Tell weights of 16 bits; those of 8 the library finds by itself, unless they are marked."""
    is_constant = value.get_node().get_type_name() == "Constant"
    return is_constant and value.get_element_type().get_type_name() in _NARROW_TYPES


def _is_product(node: Any) -> bool:
    return bool(node.get_type_name() == "MatMul")


def _import() -> ModuleType:
    return import_library(("openvino",), _EXTRA)


@cache
def _core(make: Callable[[], Any]) -> Any:
    """Return the process's one core, which lives as long as the process.

    The CPU plugin gives the thread that loads it an alternate signal stack, and frees the stack
    when the last core goes, without telling that thread: the next signal, a Ctrl-C, would crash it.
    """
    return make()


def _producer(library: ModuleType) -> str:
    """Name library and version, without the build's commit behind it."""
    return f"openvino {str(library.__version__).partition('-')[0]}"


def _supports(library: ModuleType, precision: Precision) -> bool:
    """Tell whether this CPU computes in a precision without emulating it."""
    if precision not in _CAPABILITIES:
        return precision in _TYPES
    capabilities = _core(library.Core).get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return _CAPABILITIES[precision] in capabilities


def _errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Collect what loading raises: the parser's own exceptions have no common base."""
    own: ModuleType = library.frontend
    members = vars(own).values()
    classes = [one for one in members if isinstance(one, type) and issubclass(one, Exception)]
    return (RuntimeError, *classes)


def _width(port: Any) -> int:
    """Last dimension of an output, or 0 where it is not fixed."""
    size = port.partial_shape[-1]
    return int(size.get_length()) if size.is_static else 0


BACKEND = Backend(
    extra=_EXTRA,
    dialect=lambda _: "packed",
    precision=_precision,
    probe=_probe,
    build=_build,
    load=_load,
    max_batch_tokens=1024,
)
