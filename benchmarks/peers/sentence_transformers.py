"""sentence-transformers as its documentation uses it: batches of 32, any of its backends."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH_SIZE = 32
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class SentenceTransformers:
    """A model on one of the backends."""

    def __init__(
        self, *, path: str, precision: str, num_threads: int, max_tokens: int, backend: str
    ) -> None:
        torch: Any = import_module("torch")
        torch.set_num_threads(num_threads)
        model_class: Any = import_module("sentence_transformers").SentenceTransformer
        self._model = model_class(
            path,
            device="cpu",
            backend=backend,
            model_kwargs=_model_options(backend, precision, num_threads),
        )
        self._model.max_seq_length = max_tokens
        name = {"onnx": "onnxruntime"}.get(backend, backend)
        self.engine = f"{name} {version(name)}"
        self._num_slots = 0
        self._num_tokens = 0
        self._model[0].register_forward_pre_hook(self._count_padding)

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed with the library's defaults, normalized."""
        vectors = self._model.encode(
            texts, batch_size=_BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)

    def padding_share(self) -> float | None:
        """Share of all token slots; every operation runs on all of them."""
        return 1 - self._num_tokens / self._num_slots if self._num_slots else None

    def close(self) -> None:
        """Nothing is held that its process does not free."""

    def _count_padding(self, _module: object, inputs: tuple[dict[str, Any], ...]) -> None:
        """See each batch on its way into the model."""
        mask = inputs[0]["attention_mask"]
        self._num_slots += mask.numel()
        self._num_tokens += int(mask.sum())


class Conversion:
    """A checkpoint saved for a backend, so that a start does not convert it again."""

    def __init__(self, *, path: str, output: str, backend: str) -> None:
        self._path, self._output, self._backend = path, output, backend

    def run(self) -> None:
        """Convert and save."""
        model_class: Any = import_module("sentence_transformers").SentenceTransformer
        options = _model_options(self._backend, "fp32", 1)
        model = model_class(self._path, device="cpu", backend=self._backend, model_kwargs=options)
        model.save_pretrained(self._output)

    def close(self) -> None:
        """Nothing is held that its process does not free."""


def _model_options(backend: str, precision: str, num_threads: int) -> dict[str, object]:
    if backend == "onnx":
        options = import_module("onnxruntime").SessionOptions()
        options.intra_op_num_threads = num_threads
        return {"provider": "CPUExecutionProvider", "session_options": options}
    if backend == "openvino":
        hints = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
        return {"ov_config": {**hints, "INFERENCE_NUM_THREADS": num_threads}}
    torch: Any = import_module("torch")
    return {"dtype": {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]}
