"""ExtrapSGD under PyTorch Lightning: a regression, validated and saved at the base iterate by the callback."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from extrap_kernels import ExtrapSGD
from extrap_kernels.integrations.lightning import ExtrapolationCallback


class Regression(pl.LightningModule):  # type: ignore[misc]
    """A small network for the length of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return ExtrapSGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    """Train, and print the loss on held-out data."""
    torch.manual_seed(0)
    x = torch.randn(1024, 4)
    data = TensorDataset(x, x.norm(dim=1, keepdim=True))
    train, validation = torch.utils.data.random_split(data, [768, 256])
    trainer = pl.Trainer(
        max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[ExtrapolationCallback()]
    )
    model = Regression()
    trainer.fit(model, DataLoader(train, batch_size=128, shuffle=True), DataLoader(validation, batch_size=256))
    # The model now holds the base iterate, as in every validation and every checkpoint.
    print(f"loss {trainer.callback_metrics['val_loss']:.3f}")


if __name__ == "__main__":
    main()
