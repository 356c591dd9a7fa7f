"""Several streams: what waits is shared out among them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embed_runtime.batching import Limits
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.jobs import Job
from embed_runtime.scheduler import Scheduler

Submit = Callable[..., Job]


@pytest.fixture
def scheduler(gate: Any) -> Iterator[Scheduler]:
    class Engine(DummyEngine):
        num_streams = 2

    scheduler = Scheduler(
        Engine(dimensions=8, hidden_size=4, normalize=True, fault=gate),
        limits=Limits(max_tokens=100, max_padding=1 << 60),
        max_queue_tokens=1 << 40,
    )
    yield scheduler
    gate.open(1000)
    scheduler.close(drain=False)


def test_a_stream_takes_no_more_than_its_share_beside_another(
    gate: Any, submit: Submit, scheduler: Scheduler
) -> None:
    for content in range(2):
        submit(scheduler, content)
        assert gate.wait_for_batch().num_rows == 1
    for content in range(2, 10):
        submit(scheduler, content)
    gate.open()
    assert gate.wait_for_batch().num_rows == 4  # of 8 that wait, beside 1 in the other stream


def test_a_stream_takes_all_while_the_others_are_idle(
    gate: Any, submit: Submit, scheduler: Scheduler
) -> None:
    submit(scheduler, *range(8))
    assert gate.wait_for_batch().num_rows == 8
