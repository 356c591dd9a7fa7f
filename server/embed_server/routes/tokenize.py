"""`POST /tokenize`, `/detokenize`: texts to token ids and back."""

import asyncio

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.plan import find_prompt
from embed_runtime.types import EmbedRequest
from embed_server.answers import json_response
from embed_server.documentation import FAILURES, TEI_FAILURES, either
from embed_server.endpoint import Endpoint
from embed_server.protocol.tei_tokens import TeiTokenizeBody, TokenLists, encode_tokens
from embed_server.protocol.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from embed_server.service import service_of

router = APIRouter(route_class=Endpoint, tags=["tokens"])


@router.post(
    "/tokenize",
    response_model=TokenizeResponse | TokenLists,
    responses=either(FAILURES, TEI_FAILURES),
)
async def tokenize_either(request: Request, body: TokenizeRequest | TeiTokenizeBody) -> Response:
    """Give the tokens of `prompt` or `messages`, or of `inputs` as text-embeddings-inference."""
    if isinstance(body, TokenizeRequest):
        return await _tokenize(request, body)
    model = service_of(request).find_model(body.model)
    prompt, _ = find_prompt(EmbedRequest(inputs=(), prompt_name=body.prompt_name), model.manifest)
    return json_response(
        await asyncio.to_thread(encode_tokens, body, model.runtime.tokenizer, prompt)
    )


async def _tokenize(request: Request, body: TokenizeRequest) -> Response:
    service = service_of(request)
    model = service.find_model(body.model)
    tokenizer = model.runtime.tokenizer
    [text] = await service.render(request, model, body) or (body.prompt or "",)
    ids = await asyncio.to_thread(tokenizer.encode_text, text, add_special_tokens=body.adds_tokens)
    answer = {
        "count": len(ids),
        "max_model_len": model.manifest.max_tokens,
        "tokens": ids,
        "token_strs": tokenizer.token_texts(ids) if body.return_token_strs else None,
    }
    return json_response(orjson.dumps(answer))


@router.post("/detokenize", response_model=DetokenizeResponse, responses=FAILURES)
async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    """Give the text of token ids."""
    tokenizer = service_of(request).find_model(body.model).runtime.tokenizer
    text = await asyncio.to_thread(tokenizer.decode, body.tokens)
    return json_response(orjson.dumps({"prompt": text}))
