"""The one table of tolerances, and what of an engine's figures falls short of it."""

from collections.abc import Iterator

import msgspec

from embed_export.probe import Reference
from embed_runtime.certificate import Figures, Limits, TaskFigures
from embed_runtime.types import Precision, Task

# The one tolerance table, strictest first.
# Cosines: fp32 and 16 bit leave rankings as they are; int8 is opt-in. Vectors whose cosine is c may
# lie sqrt(2 - 2c) apart, so their lengths may differ by as much.
# Batch differences: measured alone against among others with all-MiniLM-L6-v2 on an AVX-512 CPU:
# fp32 2.5e-7 (ONNX Runtime 1.32 and OpenVINO 2026.4), bf16 6.7e-4 (OpenVINO), int8 6e-8 (ONNX
# Runtime, a scale for each token). Limits leave room for deeper models; fp16 rounds 8 times finer
# than bf16.
# Other tasks, token_embed and sparse: nothing is averaged over a text. Of all-MiniLM-L6-v2's token
# vectors the worst had 1 - cosine 3e-12 in fp32, 9e-5 in bf16 and 7e-3 in int8, and differed in a
# value by 5e-7, 4e-3 and 3e-2; a wrong head gives cosines near zero.
# Activations: fp16 ends at 65,504; sums inside a layer reach a few times the largest value seen.
TOLERANCES: dict[Precision, Limits] = {
    "fp32": Limits(
        cosine_min=0.99999,
        cosine_mean=None,
        max_norm_error=0.0045,
        batch_difference=1e-5,
        max_activation=None,
        task_cosine_min=0.9999,
        task_difference=1e-3,
    ),
    "bf16": Limits(
        cosine_min=0.999,
        cosine_mean=None,
        max_norm_error=0.045,
        batch_difference=5e-3,
        max_activation=None,
        task_cosine_min=0.99,
        task_difference=0.05,
    ),
    "fp16": Limits(
        cosine_min=0.999,
        cosine_mean=None,
        max_norm_error=0.045,
        batch_difference=1e-3,
        max_activation=2e4,
        task_cosine_min=0.995,
        task_difference=0.02,
    ),
    "int8": Limits(
        cosine_min=0.99,
        cosine_mean=0.995,
        max_norm_error=0.14,
        batch_difference=5e-3,
        max_activation=None,
        task_cosine_min=0.95,
        task_difference=0.25,
    ),
}


def limits_for(bundle: Precision, engine: Precision) -> Limits:
    """Look up what an engine must meet.

    Args:
        bundle: The precision its weights are stored in.
        engine: The precision it computes in; the coarser of the two limits how close to the
            original it can come, this one alone how much a batch and its size may change.
    """
    order = list(TOLERANCES)
    coarser = TOLERANCES[max(bundle, engine, key=order.index)]
    own = TOLERANCES[engine]
    return msgspec.structs.replace(
        coarser, batch_difference=own.batch_difference, max_activation=own.max_activation
    )


def find_shortfalls(
    figures: Figures, limits: Limits, reference: Reference
) -> Iterator[tuple[str, float, float]]:
    """Yield every figure outside its limit, in words, as measured and as allowed."""
    if figures.num_non_finite:
        yield (
            f"{figures.num_non_finite} values are not finite, none may be",
            (figures.num_non_finite),
            0,
        )
    batch_difference = max(figures.batch_difference_alone, figures.batch_difference_shuffled)
    for name, measured, least in (
        ("smallest cosine", figures.cosine_min, limits.cosine_min),
        ("mean cosine", figures.cosine_mean, limits.cosine_mean),
    ):
        # Written so that NaN, which compares false with everything, is a shortfall.
        if least is not None and not measured >= least:
            yield f"{name} {measured:.7g}, {least:g} at least", measured, least
    for name, measured, most in (
        ("length differs by", figures.max_norm_error, limits.max_norm_error),
        ("a value changes with its batch by", batch_difference, limits.batch_difference),
        ("activations reach", reference.max_activation, limits.max_activation),
    ):
        if most is not None and not measured <= most:
            yield f"{name} {measured:.3g}, {most:g} at most", measured, most
    for task, one in figures.tasks.items():
        yield from _task_shortfalls(task, one, limits)


def _task_shortfalls(
    task: Task, figures: TaskFigures, limits: Limits
) -> Iterator[tuple[str, float, float]]:
    """Yield what a task other than `embed` falls short of."""
    measured, least = figures.cosine_min, limits.task_cosine_min
    if least is not None and not measured >= least:
        yield f"{task}: smallest cosine {measured:.7g}, {least:g} at least", measured, least
    measured, most = figures.max_difference, limits.task_difference
    if most is not None and not measured <= most:
        yield f"{task}: a value differs by {measured:.3g}, {most:g} at most", measured, most
