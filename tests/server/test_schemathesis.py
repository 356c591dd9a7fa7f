"""What schemathesis makes of our document: thousands of requests, and no answer it does not say."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks, openapi
from starlette.testclient import TestClient

from embed_runtime import Runtime
from embed_server.app import create_app
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

pytestmark = pytest.mark.slow

NUM_CASES = 120  # 17 endpoints take a body: together more than 2,000
GOLDEN = Path(__file__).parents[2] / "server/openapi.json"
# Their types have variables that the library leaves open.
SCHEMA: Any = openapi.from_dict(json.loads(GOLDEN.read_text(encoding="utf-8")))
OPERATIONS: dict[str, Any] = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}
# Fields whose values a schema cannot list; most requests that have them all are refused early.
NAMES = ("model", "prompt_name", "input_type", "task", "normalize", "chat_template", "cache_salt")

REGISTRY: Any = checks
REGISTRY.load_all_checks()
CONFORMANCE = REGISTRY.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture
def client(sparse_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """Talk to an app whose model does all there is."""
    with (
        Runtime(sparse_bundle("token_weights")) as runtime,
        TestClient(create_app([ServedModel.of(runtime)], ServerConfig())) as client,
    ):
        yield client


def without_names(case: Any) -> Any:
    for name in NAMES if hasattr(case.body, "items") else ():
        case.body.pop(name, None)
    return case


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_in_the_document(client: TestClient, label: str) -> None:
    operation = OPERATIONS[label]
    right = operation.as_strategy(GenerationMode.POSITIVE)
    wrong = operation.as_strategy(GenerationMode.NEGATIVE)
    num_cases = 0

    # Derandomized: the same requests in every run, so that this test cannot fail by chance.
    @settings(
        max_examples=NUM_CASES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(right | right.map(without_names) | wrong)
    def ask(case: Any) -> None:
        nonlocal num_cases
        num_cases += 1
        response = client.request(**transport_of(case))
        case.validate_response(response, checks=CONFORMANCE)

    ask()
    assert num_cases >= (NUM_CASES if operation.body else 1)


def transport_of(case: Any) -> dict[str, Any]:
    """Say what the client takes; bodies that are bytes already have another name there."""
    transport: dict[str, Any] = case.as_transport_kwargs(base_url="http://testserver")
    transport.pop("cookies", None)
    if isinstance(transport.get("data"), bytes | str):
        transport["content"] = transport.pop("data")
    return transport
