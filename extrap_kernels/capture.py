"""What CUDA graphs need: that the memory which a captured launch uses is not given to anybody else."""

from __future__ import annotations

import torch

_kept: list[object] = []


def is_capturing(device: torch.device) -> bool:
    """Whether launches on ``device`` are being captured in a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def keep(*used: object) -> None:
    """Keep what a captured launch uses for as long as the process lives: nobody tells when its graph is gone.

    Parameters, gradients and state are the caller's to keep. What is allocated during a capture belongs to its graph.
    """
    _kept.append(used)
