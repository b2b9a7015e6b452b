"""ExtrapSGD in timm's train loop: parameter groups, scheduler, scaler, EMA and checkpoints are timm's own."""

from __future__ import annotations

import tempfile

import timm
import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler
from torch.nn.functional import cross_entropy

from extrap_kernels import ExtrapSGD

EPOCHS, BATCH = 3, 32


def main() -> None:
    """Train a small ResNet to tell bright from dark noise and print its accuracy and that of its average."""
    torch.set_num_threads(1)  # the images are tiny
    torch.manual_seed(0)
    labels = torch.randint(2, (192,))
    images = torch.randn(192, 3, 32, 32) + labels[:, None, None, None]
    model = timm.create_model("resnet10t", num_classes=2)
    optimizer = ExtrapSGD(param_groups_weight_decay(model, 0.01), lr=0.05, momentum=0.9)
    scheduler = CosineLRScheduler(optimizer, t_initial=EPOCHS, warmup_t=1, warmup_lr_init=0.01)
    scaler, average = NativeScaler(device="cpu"), ModelEmaV3(model, decay=0.7)
    with tempfile.TemporaryDirectory() as folder:
        saver = CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=folder, recovery_dir=folder)
        for epoch in range(EPOCHS):
            model.train()
            for chosen in torch.randperm(128).split(BATCH):
                scaler(cross_entropy(model(images[chosen]), labels[chosen]), optimizer)
                optimizer.zero_grad()
                with optimizer.base_parameters():
                    average.update(model)
            # Evaluate and save the base iterate.
            with optimizer.base_parameters(), torch.no_grad():
                accuracies = [
                    (m.eval()(images[128:]).argmax(1) == labels[128:]).float().mean() for m in (model, average)
                ]
                saver.save_checkpoint(epoch, metric=accuracies[0].item())
            scheduler.step(epoch + 1)
        print(f"accuracy {accuracies[0]:.2f}, of the average {accuracies[1]:.2f}")


if __name__ == "__main__":
    main()
