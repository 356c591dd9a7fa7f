"""A model held in 16 bit computes what the same model held in float32 computes, bit for bit."""

# transformers leaves the types of what it makes open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, Gemma2Config, Gemma2Model, Qwen3Config, Qwen3Model

from embed_export.widening import compute_in_float32

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 50,
}
_ROW = torch.tensor([[7, 3, 7, 0, 49]])


def _bert() -> torch.nn.Module:
    return BertModel(BertConfig(**_SIZES))


def _qwen3() -> torch.nn.Module:
    return Qwen3Model(Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=8))


def _run(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = model(input_ids=_ROW).last_hidden_state
    return states


@pytest.mark.parametrize("make", [_bert, _qwen3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_results_are_those_of_float32(make: Any, dtype: torch.dtype) -> None:
    torch.default_generator.manual_seed(0)
    narrow = make().eval().to(dtype)
    wide = deepcopy(narrow).float()
    for name, buffer in wide.named_buffers():
        narrow.get_buffer(name).data = buffer
    assert compute_in_float32(narrow)
    assert torch.equal(_run(narrow), _run(wide))
    assert torch.equal(_run(narrow), _run(wide))  # and the weights came back
    assert all(weight.dtype == dtype for weight in narrow.parameters())


def test_weights_come_back_when_a_module_fails() -> None:
    model = _bert().eval().to(torch.bfloat16)
    assert compute_in_float32(model)
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[1000]]))
    assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())


def test_a_model_with_rounded_constants_is_left_as_it_is() -> None:
    model = Gemma2Model(Gemma2Config(**_SIZES, num_key_value_heads=2, head_dim=8)).bfloat16()
    assert not compute_in_float32(model)
    assert _run(model.train(mode=False)).dtype == torch.bfloat16
