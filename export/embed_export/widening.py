"""A torch model that keeps its weights in 16 bit and computes in float32."""

# torch leaves the types of hooks and of what they are given open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false

from typing import Any

import torch
from torch import nn


def compute_in_float32(model: nn.Module) -> bool:
    """Widen each module's own weights while it runs, and only then.

    Every 16-bit number is a float32 number too: the results are those of a model held in float32,
    bit for bit, in half of its memory.

    Returns:
        Whether it can be done. Not where a constant of the model was rounded to 16 bit when it was
        made: then the model is unchanged.
    """
    if any(buffer.is_floating_point() and _is_narrow(buffer) for buffer in model.buffers()):
        return False
    for module in model.modules():
        own = [weight for weight in module.parameters(recurse=False) if _is_narrow(weight)]
        if own:
            is_table = type(module) is nn.Embedding
            module.register_forward_pre_hook(_widen_rows if is_table else _widen)
            module.register_forward_hook(_restore, always_call=True)
    return True


def _is_narrow(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _widen(module: nn.Module, _inputs: object) -> None:
    """Put float32 copies in the place of a module's weights."""
    narrow = {weight: weight.data for weight in module.parameters(recurse=False)}
    module.__dict__["narrow_weights"] = narrow
    for weight in narrow:
        weight.data = weight.data.float()


def _widen_rows(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[Any, ...]:
    """Put a float32 table of the rows that are looked up in the place of a large one."""
    [weight] = module.parameters(recurse=False)
    module.__dict__["narrow_weights"] = {weight: weight.data}
    rows, positions = torch.unique(inputs[0], return_inverse=True)
    weight.data = weight.data[rows].float()
    return (positions, *inputs[1:])


def _restore(module: nn.Module, _inputs: object, _outputs: object) -> None:
    for weight, narrow in module.__dict__.pop("narrow_weights").items():
        weight.data = narrow
