"""Headers of a request."""

from starlette.types import Scope


def find_header(scope: Scope, name: bytes) -> str:
    """Read a header without making an object of all of them; empty where there is none.

    Args:
        scope: The request's; its names are in lower case, as ASGI says.
        name: In lower case.
    """
    for key, value in scope["headers"]:
        if key == name:
            found: str = value.decode("latin-1")
            return found
    return ""
