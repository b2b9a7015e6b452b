"""ExtrapAdamW under Hugging Face Accelerate: accumulated gradients, evaluation and saving at the base iterate."""

from __future__ import annotations

import tempfile

import torch
from accelerate import Accelerator
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from extrap_kernels import ExtrapAdamW

EPOCHS, BATCH, ACCUMULATED = 20, 64, 2


def main() -> None:
    """Train on the length of a vector and print the loss on held-out data."""
    torch.set_num_threads(1)  # the tensors are tiny
    torch.manual_seed(0)
    x = torch.randn(1024, 4)
    y = x.norm(dim=1, keepdim=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED)
    model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimizer = ExtrapAdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * 768 // (BATCH * ACCUMULATED))
    loader = DataLoader(TensorDataset(x[:768], y[:768]), batch_size=BATCH, shuffle=True)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(EPOCHS):
            optimizer.train()
            for inputs, targets in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(mse_loss(model(inputs), targets))
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            # The model now holds the base iterate. Accelerate's wrapper forwards train() and eval() only: what else the
            # optimizer has is in optimizer.optimizer, as in `with optimizer.optimizer.base_parameters():`.
            optimizer.eval()
            with torch.no_grad():
                loss = mse_loss(model(x[768:]), y[768:])
            accelerator.save_state(folder)
    print(f"loss {loss:.3f}")


if __name__ == "__main__":
    main()
