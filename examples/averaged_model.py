"""Averaging the base iterate of ExtrapSGD with torch.optim.swa_utils.AveragedModel."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from extrap_kernels import ExtrapSGD


def main() -> None:
    """Train on noisy targets and print the errors of the last iterate and of the average."""
    torch.manual_seed(0)
    truth = torch.randn(16, 1)
    model = torch.nn.Linear(16, 1)
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, momentum=0.5)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    for _ in range(500):
        x = torch.randn(32, 16)
        optimizer.zero_grad()
        mse_loss(model(x), x @ truth + torch.randn(32, 1)).backward()
        optimizer.step()
        # Between steps the parameters hold the extrapolated point; the average is over the base iterate.
        with optimizer.base_parameters():
            averaged.update_parameters(model)
    optimizer.eval()
    x = torch.eye(16)
    for name, each in (("last iterate", model), ("average", averaged)):
        print(f"error {(each(x) - truth).norm():.3f}, {name}")


if __name__ == "__main__":
    main()
