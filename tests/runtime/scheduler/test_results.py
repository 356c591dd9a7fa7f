"""What comes back: one vector for each input or token, in order, of one's own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from embed_runtime.jobs import Job
from embed_runtime.plan import Plan
from embed_runtime.scheduler import Scheduler
from embed_runtime.types import FloatArray, OutputName, TokenizedInput

SECONDS = 30

Start = Callable[..., Scheduler]
Submit = Callable[..., Job]
Alone = Callable[..., FloatArray]


def test_one_vector_for_each_input_in_order(start: Start, submit: Submit, alone: Alone) -> None:
    result = submit(start(), 3, 1, 2, 1).result(SECONDS)
    assert result.vectors.shape == (4, 8)
    assert result.vectors.dtype == np.float32
    assert result.offsets.tolist() == [0, 1, 2, 3, 4]
    assert result.num_tokens.tolist() == [10] * 4
    for row, content in zip(result.vectors, (3, 1, 2, 1), strict=True):
        assert np.array_equal(row, alone(content)[0])


def test_one_vector_for_each_token(start: Start) -> None:
    inputs = [TokenizedInput(input_ids=np.arange(n, dtype=np.int32)) for n in (3, 1, 4)]
    job = Job(inputs, Plan(output="token_embeddings"))
    start().submit(job)
    result = job.result(SECONDS)
    assert result.offsets.tolist() == [0, 3, 4, 8]
    assert result.vectors.shape == (8, 4)
    for index in range(3):
        own = result.vectors[result.offsets[index] : result.offsets[index + 1]]
        assert np.array_equal(own, result.vectors[4 : 4 + len(own)])


def test_cuts_and_normalizes(start: Start, submit: Submit, alone: Alone) -> None:
    cut = submit(start(), 5, dimensions=3, normalize=True).result(SECONDS).vectors
    whole = alone(5)
    assert np.allclose(cut, whole[:, :3] / np.linalg.norm(whole[:, :3]), atol=1e-6)
    assert np.array_equal(submit(start(), 5, dimensions=3).result().vectors, whole[:, :3])


def test_outputs_of_all_kinds_share_a_batch(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate)
    submit(scheduler, 0)
    gate.wait_for_batch()
    kinds: list[OutputName] = ["embedding", "pooled", "token_embeddings"]
    jobs = [submit(scheduler, 1, output=kind) for kind in kinds]
    gate.open(2)
    for job, kind in zip(jobs, kinds, strict=True):
        assert np.array_equal(job.result(SECONDS).vectors, alone(1, output=kind))
    assert gate.batches[1].outputs == ("embedding", "pooled", "token_embeddings")


def test_identical_inputs_are_computed_once(
    start: Start, gate: Any, submit: Submit, alone: Alone
) -> None:
    scheduler = start(gate)
    submit(scheduler, 0)
    gate.wait_for_batch()
    jobs = [submit(scheduler, 1, 2), submit(scheduler, 2, 2), submit(scheduler, 1)]
    gate.open(2)
    assert np.array_equal(jobs[0].result(SECONDS).vectors, alone(1, 2))
    assert np.array_equal(jobs[1].result(SECONDS).vectors, alone(2, 2))
    assert np.array_equal(jobs[2].result(SECONDS).vectors, alone(1))
    assert gate.batches[1].num_rows == 2
    assert scheduler.stats().deduplicated == 3


def test_jobs_own_their_vectors(start: Start, submit: Submit, alone: Alone) -> None:
    scheduler = start()
    first = submit(scheduler, 1).result(SECONDS).vectors
    first[:] = 0
    assert np.array_equal(submit(scheduler, 1).result(SECONDS).vectors, alone(1))
