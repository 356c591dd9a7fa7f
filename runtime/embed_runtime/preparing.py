"""From a request to a job: checked, tokenized, ready for the queue."""

from dataclasses import replace

import numpy as np

from embed_runtime.chunking import PieceGathering, SpanGathering, split
from embed_runtime.jobs import Job
from embed_runtime.manifest import Manifest
from embed_runtime.plan import Plan, make_plan
from embed_runtime.tokenizer import Tokenizer
from embed_runtime.types import NO_ADAPTER, EmbedRequest, TokenizedInput


def prepare(
    request: EmbedRequest, *, manifest: Manifest, tokenizer: Tokenizer, first_index: int = 0
) -> Job:
    """Check a request and tokenize it.

    Raises:
        InputError: The request is wrong.
    """
    plan = make_plan(request, manifest)
    if request.late_chunking:
        whole, offsets = tokenizer.encode_together(request, prompt=plan.prompt)
        [whole] = _with_adapter([whole], plan)
        return Job([whole], plan, gathering=SpanGathering(plan, offsets))
    inputs = tokenizer.encode(request, prompt=plan.prompt, first_index=first_index)
    inputs = _with_adapter(inputs, plan)
    if not request.chunk or all(item.num_tokens <= tokenizer.max_tokens for item in inputs):
        return Job(inputs, plan, first_index=first_index)
    pieces, owners = split(inputs, tokenizer.max_tokens)
    num_tokens = np.array([piece.num_tokens for piece in pieces], np.int32)
    return Job(
        pieces,
        plan,
        first_index=first_index,
        gathering=PieceGathering(plan, num_tokens, owners),
        owners=owners,
    )


def _with_adapter(inputs: list[TokenizedInput], plan: Plan) -> list[TokenizedInput]:
    if plan.adapter == NO_ADAPTER:
        return inputs
    return [replace(item, adapter=plan.adapter) for item in inputs]
