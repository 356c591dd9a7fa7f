"""The tables of failures: statuses, words and what they hide."""

import inspect

import orjson
import pytest

import embed_runtime.errors as runtime_errors
from embed_runtime.errors import EmbedError
from embed_server import errors
from embed_server.errors import CONTRACT, STRICT, TEI, Dialect, error_response, find_failure

ALL_ERRORS = [
    error
    for module in (runtime_errors, errors)
    for _, error in inspect.getmembers(module, inspect.isclass)
    if issubclass(error, EmbedError) and error is not EmbedError
]


@pytest.mark.parametrize("dialect", [CONTRACT, STRICT, TEI])
@pytest.mark.parametrize("error", ALL_ERRORS)
def test_every_error_has_a_row_of_its_own_or_of_its_parent(
    error: type[EmbedError], dialect: Dialect
) -> None:
    assert any(ancestor in dialect.failures for ancestor in error.__mro__)


def test_a_class_without_a_row_gets_its_nearest_ancestors() -> None:
    class Narrower(runtime_errors.OverloadedError):
        pass

    assert find_failure(Narrower).status == 429
    assert find_failure(ZeroDivisionError) == CONTRACT.internal


@pytest.mark.parametrize(
    ("error", "contract", "tei"),
    [
        (errors.SchemaError, (400, "Bad Request"), (422, "Validation")),
        (runtime_errors.InputError, (400, "BadRequestError"), (422, "Validation")),
        (runtime_errors.InputTooLongError, (400, "BadRequestError"), (413, "Validation")),
        (runtime_errors.RequestTooLargeError, (413, "RequestTooLargeError"), (413, "Validation")),
        (errors.BodyTooLargeError, (413, "RequestTooLargeError"), (413, "Validation")),
        (errors.UnknownModelError, (404, "NotFoundError"), (404, "Validation")),
        (runtime_errors.OverloadedError, (429, "TooManyRequestsError"), (429, "Overloaded")),
        (errors.DisconnectedError, (499, "ClientClosedRequestError"), (499, "Validation")),
        (runtime_errors.EngineError, (500, "InternalServerError"), (424, "Backend")),
        (runtime_errors.NotFiniteError, (500, "InternalServerError"), (424, "Backend")),
        (ZeroDivisionError, (500, "InternalServerError"), (500, "Backend")),
        (runtime_errors.ClosedError, (503, "ServiceUnavailableError"), (503, "Unhealthy")),
        (runtime_errors.BundleError, (503, "ServiceUnavailableError"), (503, "Unhealthy")),
        (errors.DeadlineError, (504, "GatewayTimeoutError"), (504, "Overloaded")),
    ],
)
def test_statuses_and_words(
    error: type[Exception], contract: tuple[int, str], tei: tuple[int, str]
) -> None:
    answer = error_response(error("why"))
    body = orjson.loads(answer.body)["error"]
    param = "model" if error is errors.UnknownModelError else None
    assert (answer.status_code, body["type"], body["param"]) == (*contract, param)
    assert body["code"] == answer.status_code
    answer = error_response(error("why"), TEI)
    body = orjson.loads(answer.body)
    assert (answer.status_code, body["error_type"], set(body)) == (*tei, {"error", "error_type"})


@pytest.mark.parametrize("dialect", [CONTRACT, STRICT, TEI])
def test_what_could_tell_of_our_insides_is_logged_and_not_sent(dialect: Dialect) -> None:
    for ours in (runtime_errors.EngineError, runtime_errors.ClosedError, ZeroDivisionError):
        assert b"secret" not in error_response(ours("secret"), dialect).body
        assert find_failure(ours, dialect).is_logged
    for theirs in (runtime_errors.InputError, runtime_errors.OverloadedError, errors.DeadlineError):
        assert b"what to do" in error_response(theirs("what to do"), dialect).body
        assert not find_failure(theirs, dialect).is_logged
    broken = runtime_errors.NotFiniteError("input 3 is not finite")
    assert b"input 3" in error_response(broken, dialect).body
    assert find_failure(type(broken), dialect).is_logged


@pytest.mark.parametrize("dialect", [CONTRACT, TEI])
def test_a_message_that_is_no_unicode_is_told_all_the_same(dialect: Dialect) -> None:
    response = error_response(runtime_errors.InputError("half of \ud800, \u00e9"), dialect)
    error = orjson.loads(response.body)["error"]
    assert (error if dialect is TEI else error["message"]) == "half of \\ud800, \u00e9"


@pytest.mark.parametrize(("dialect", "status"), [(CONTRACT, 429), (STRICT, 503), (TEI, 429)])
def test_overload_says_when_to_come_back(dialect: Dialect, status: int) -> None:
    error = runtime_errors.OverloadedError("the queue is full", retry_after_seconds=7)
    response = error_response(error, dialect)
    assert (response.status_code, response.headers["retry-after"]) == (status, "7")
    assert b"the queue is full" in response.body
