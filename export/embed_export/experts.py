"""Mixtures of experts in a form that can be traced: every expert computes every token.

transformers' own forms send each token to its experts, which takes operators that engines lack, or
copies an expert's matrices for every token, which takes more memory than there is.
"""

# transformers leaves the types of what it registers open.
# pyright: reportUnknownMemberType=false

from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

_NAME = "every_expert"


def compute_every_expert(model: Any) -> None:
    """Let a model's mixtures, if it has any, compute every expert."""
    ALL_EXPERTS_FUNCTIONS.register(_NAME, _forward)
    model.set_experts_implementation(_NAME)


def _forward(
    experts: Any,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Compute [T, H] from [T, H] tokens and the [T, k] experts they chose, with their shares."""
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    # Written out: OpenVINO does not broadcast in front of constant matrices.
    rows = hidden_states.expand(experts.num_experts, -1, -1)
    inner = _linear(experts, first, rows)
    # A family may have a gate of its own under this name; it is the interface's, if not public.
    inner = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)  # noqa: SLF001
    outer = _linear(experts, "down_proj", inner)
    if experts.has_post_expert_norm:
        outer = experts.post_expert_norm(outer)
    shares = torch.zeros((hidden_states.shape[0], experts.num_experts), dtype=outer.dtype).scatter(
        1, top_k_index, top_k_weights.to(outer.dtype)
    )
    return (outer * shares.T.unsqueeze(-1)).sum(dim=0).to(hidden_states.dtype)


def _linear(experts: Any, name: str, values: torch.Tensor) -> torch.Tensor:
    """Apply the linear layer of each expert to its [T, N] of [E, T, N]."""
    weight: torch.Tensor = getattr(experts, name)
    product = values @ (weight if experts.is_transposed else weight.transpose(1, 2))
    if not experts.has_bias:
        return product
    bias: torch.Tensor = getattr(experts, f"{name}_bias")
    return product + bias.unsqueeze(1)
