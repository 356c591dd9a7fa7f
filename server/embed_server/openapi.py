"""`python -m embed_server.openapi`: write what `/openapi.json` says of a server with keys."""

import json

from embed_server.app import create_app
from embed_server.config import ServerConfig


def write_document() -> str:
    """Write the document; no model is needed, since it is the same for all."""
    document = create_app([], ServerConfig(api_key=("any",))).openapi()
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    print(write_document(), end="")
