"""`POST /tokenize`, `/detokenize`: texts to token ids and back."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embed_runtime.plan import find_prompt
from embed_runtime.types import EmbedRequest
from embed_server.answers import json_answer
from embed_server.documentation import FAILURES, TEI_FAILURES, either
from embed_server.endpoint import Endpoint
from embed_server.protocol.tei_tokens import TeiTokenizeBody, TokenLists, to_token_lists
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
    service = service_of(request)
    model = service.find_model(body.model)
    prompt, _ = find_prompt(EmbedRequest(inputs=(), prompt_name=body.prompt_name), model.manifest)
    service.check_num_inputs(len(body.inputs))
    num_chars = sum(map(len, body.inputs)) + len(prompt) * len(body.inputs)
    service.check_tokenizing(num_chars, "characters")
    lists = await asyncio.to_thread(to_token_lists, body, model.runtime.tokenizer, prompt)
    return await json_answer(lambda: lists, size=num_chars)


async def _tokenize(request: Request, body: TokenizeRequest) -> Response:
    service = service_of(request)
    model = service.find_model(body.model)
    tokenizer = model.runtime.tokenizer
    [text] = await service.render(request, model, body) or (body.prompt or "",)
    service.check_tokenizing(len(text), "characters")

    def tokenize() -> dict[str, object]:
        ids = tokenizer.encode_text(text, add_special_tokens=body.adds_tokens)
        return {
            "count": len(ids),
            "max_model_len": model.manifest.max_tokens,
            "tokens": ids,
            "token_strs": tokenizer.token_texts(ids) if body.return_token_strs else None,
        }

    answer = await asyncio.to_thread(tokenize)
    return await json_answer(lambda: answer, size=len(text))


@router.post("/detokenize", response_model=DetokenizeResponse, responses=FAILURES)
async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    """Give the text of token ids."""
    service = service_of(request)
    tokenizer = service.find_model(body.model).runtime.tokenizer
    service.check_tokenizing(len(body.tokens), "token ids")
    text = await asyncio.to_thread(tokenizer.decode, body.tokens)
    return await json_answer(lambda: {"prompt": text}, size=len(body.tokens))
