"""Peak memory of a training step with and without gradient release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench.workloads import VOCABULARY
from extrap_kernels import ExtrapAdamW, release_gradients

TOKENS = 32


class LanguageModel(nn.Module):
    """A transformer of GPT-2's size: by default its smallest, 124 million parameters, with a tied output layer."""

    def __init__(self, width: int = 768, layers: int = 12, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(TOKENS, width)
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        heads = max(1, width // 64)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next tokens."""
        hidden = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], tokens.device, hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return nn.functional.linear(self.norm(hidden), self.tokens.weight)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return by how much ``run`` raises the memory of torch's tensors at its peak."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def peak_of_step(make: Callable[[], nn.Module], dtype: torch.dtype, bucket_mb: Optional[float], device: str) -> int:
    """Return the peak of the second step of AdamW: the first one makes the state.

    Args:
        make: makes the model; it takes numbers of tokens from 0 on.
        dtype: of parameters and gradients.
        bucket_mb: of the release; None: without.
        device: of the model.
    """
    model = make().to(device, dtype)
    optimizer = ExtrapAdamW(model.parameters(), lr=1e-4)
    if bucket_mb is not None:
        release_gradients(model, optimizer, bucket_mb)
    tokens = torch.arange(TOKENS + 1, device=device)[None]

    def step() -> None:
        logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return peak_bytes(step, torch.device(device))


def peaks(device: str, make: Callable[[], nn.Module] = LanguageModel) -> tuple[list[dict[str, Any]], int]:
    """Return a row for each dtype and size of buckets, and the number of parameters."""
    numel = sum(param.numel() for param in make().parameters())
    rows: list[dict[str, Any]] = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        peak = {mb: peak_of_step(make, dtype, mb, device) for mb in (None, 64)}
        for mb, nbytes in peak.items():
            row = {"step": f"{name}, without release" if mb is None else f"{name}, buckets of {mb} MiB"}
            saved = (peak[None] - nbytes) / numel
            rows.append({**row, "peak, MB": nbytes / 1e6, "B/param": nbytes / numel, "B/param saved": saved})
    return rows, numel
