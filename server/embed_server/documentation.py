"""What `/openapi.json` says beyond requests and answers: failures, headers, examples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel

from embed_server.errors import CONTRACT, TEI, Dialect
from embed_server.protocol.shared import ErrorBody
from embed_server.protocol.tei import TeiErrorBody

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_WHEN: Mapping[int, str] = MappingProxyType(
    {
        400: "The request is wrong; sending it again cannot help",
        404: "No such model",
        413: "Too much for one request: split it, or let long inputs be cut",
        422: "The request is wrong; sending it again cannot help",
        424: "The engine failed; the server's log has the cause under the request's id",
        429: "Too much is waiting; the header Retry-After says when to come back",
        499: "The client left before its answer was ready; for logs and metrics alone",
        500: "The server failed; its log has the cause under the request's id",
        503: "The server is stopping, or a bundle is damaged",
        504: "Not answered within --max-request-seconds",
    }
)
_REQUEST_ID = {
    "description": "The caller's own, or a new one; the log knows the request by it.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {
    "description": "Seconds to wait before the next try.",
    "schema": {"type": "integer", "minimum": 0},
}


def _document(dialect: Dialect, model: type[BaseModel]) -> Responses:
    """Describe every failure that a dialect's table knows."""
    documented: Responses = {}
    for failure in (dialect.internal, *dialect.failures.values()):
        response = documented.setdefault(
            failure.status,
            {
                "model": model,
                "description": _WHEN[failure.status],
                "content": {"application/json": {"examples": {}}},
            },
        )
        message = failure.message or "what was given, what is allowed, what to do"
        examples = response["content"]["application/json"]["examples"]
        examples.setdefault(failure.type, {"value": dialect.to_body(failure, message, None)})
        if failure.status == 429:
            response["headers"] = {"Retry-After": _RETRY_AFTER}
    # FastAPI then leaves out a 422 of its own, which is never sent; `DocumentedApp` drops it.
    return documented | {"default": {}}


def either(first: Responses, second: Responses) -> Responses:
    """Describe the failures of an endpoint that speaks two dialects."""
    merged = first | second
    for status in first.keys() & second.keys() - {"default"}:
        one, other = first[status], second[status]
        examples = [side["content"]["application/json"]["examples"] for side in (one, other)]
        merged[status] = one | {
            "model": one["model"] | other["model"],
            "content": {"application/json": {"examples": examples[0] | examples[1]}},
        }
    return merged


def choose(*statuses: int) -> Responses:
    """Take some failures out of `FAILURES`, for endpoints that know no others."""
    return {status: FAILURES[status] for status in statuses}


def answer(example: object) -> Responses:
    """Show an answer that has no model of its own."""
    return {200: {"content": {"application/json": {"example": example}}}}


FAILURES = _document(CONTRACT, ErrorBody)
TEI_FAILURES = _document(TEI, TeiErrorBody)

UNAUTHORIZED: Responses = {
    401: {
        "description": "No valid key",
        "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                },
                "example": {"error": "Unauthorized"},
            }
        },
    }
}

# Beside JSON, of endpoints with the field `encoding_format`.
BYTES: Responses = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "metadata": {
                "description": "With `encoding_format` `bytes`: JSON that says where each "
                "input's values are, and what it cost.",
                "schema": {"type": "string"},
            }
        },
    }
}


class DocumentedApp(FastAPI):
    """FastAPI, whose document says what is sent and nothing else."""

    def openapi(self) -> dict[str, Any]:
        """Describe all endpoints, once."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document["components"]
            components["headers"] = {"X-Request-Id": _REQUEST_ID}
            components["responses"] = {}
            every = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
            for path in document["paths"].values():
                for operation in path.values():
                    responses = operation["responses"]
                    responses.pop("default", None)
                    for status, response in responses.items():
                        response["headers"] = response.get("headers", {}) | every
                        if status != "200":
                            responses[status] = _share(response, status, components["responses"])
        return super().openapi()


def _share(response: dict[str, Any], status: str, shared: dict[str, Any]) -> dict[str, str]:
    """Keep a failure once for all endpoints that have it; returns where it is."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    schema.pop("title", None)
    models = [
        one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]) if "$ref" in one
    ]
    name = "Or".join(models) + status
    assert shared.setdefault(name, response) == response
    return {"$ref": f"#/components/responses/{name}"}
