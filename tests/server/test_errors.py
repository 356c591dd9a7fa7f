import inspect

import pytest

import embed_runtime.errors
from embed_server.errors import FAILURES, HIDDEN, Failure, error_response, find_failure

RUNTIME_ERRORS = [
    error
    for _, error in inspect.getmembers(embed_runtime.errors, inspect.isclass)
    if error is not embed_runtime.errors.EmbedError
]


@pytest.mark.parametrize("error", RUNTIME_ERRORS)
def test_every_runtime_error_has_a_row_of_its_own_or_of_its_parent(
    error: type[Exception],
) -> None:
    assert any(ancestor in FAILURES for ancestor in error.__mro__)


def test_a_class_without_a_row_gets_its_nearest_ancestors() -> None:
    class Narrower(embed_runtime.errors.OverloadedError):
        pass

    assert find_failure(Narrower).status == 429
    assert find_failure(ZeroDivisionError) == Failure(500, "InternalServerError")


def test_every_status_of_ours_has_a_text_that_hides_the_cause() -> None:
    statuses = {failure.status for failure in FAILURES.values()}
    assert {status for status in statuses if status >= 500} == set(HIDDEN)


def test_overload_says_when_to_come_back() -> None:
    error = embed_runtime.errors.OverloadedError("the queue is full", retry_after_seconds=7)
    response = error_response(error)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert b"the queue is full" in response.body
