"""The demo's training with real data-parallel workers: DistributedDataParallel and local extrapolation.

``torchrun --nproc-per-node 2 examples/train_ddp.py``, or ``make demo-ddp``. Every worker takes its share of the demo's
batches; at the end the first one trains with simulated workers and prints both results. All of it in double precision:
in single precision the roundings, which differ, grow over the steps until a few test images are told apart differently.
"""

from __future__ import annotations

import argparse

import digits
import recipe
import torch
import torch.distributed as dist
from demo import positive_int
from experiment import Job, train
from resnet import ResNet
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels import ExtrapSGD
from extrap_kernels.distributed import register_local_gradient_hook


def train_worker(job: Job, epochs: int) -> tuple[float, float]:
    """Train as one of the workers; return accuracy in percent and cross-entropy of the base iterate on test data."""
    rank, workers = dist.get_rank(), dist.get_world_size()
    data = digits.load()
    torch.manual_seed(job.seed)
    model = ResNet()
    wrapped = DistributedDataParallel(model)
    optimizer = recipe.make_optimizer(job.method, model.parameters(), job.lr)
    assert isinstance(optimizer, ExtrapSGD)
    register_local_gradient_hook(wrapped, optimizer)
    steps = recipe.steps_for(epochs, len(data.train.labels), job.batch_size)
    for step, batch in enumerate(digits.batches(data.train, job.batch_size, steps, job.seed)):
        recipe.set_lr(optimizer, job.lr * recipe.lr_factor(step, steps))
        images, labels = (part.chunk(workers)[rank] for part in batch)
        optimizer.zero_grad()
        F.cross_entropy(wrapped(images), labels).backward()
        optimizer.step()
    optimizer.eval()
    return recipe.evaluate(model, dict(model.named_parameters()), data.test)


def main() -> None:
    """Train, and compare with simulated workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch-size", type=positive_int, default=256, metavar="B", help="of all workers (default: 256)"
    )
    parser.add_argument(
        "--epochs", type=positive_int, default=recipe.EPOCHS, metavar="E", help="(default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    workers = dist.get_world_size()
    if options.batch_size % workers:
        parser.error(f"--batch-size {options.batch_size} is not a multiple of the {workers} workers")
    job = Job("ExtrapSGD", options.batch_size, recipe.scaled_lr(options.batch_size), options.seed)
    accuracy, loss = train_worker(job, options.epochs)
    if dist.get_rank() == 0:
        simulated = train(job, workers, options.epochs, "auto")
        print(f"{workers} workers, batch {job.batch_size}, {options.epochs} epochs of {job.method}")
        print(f"DistributedDataParallel: test accuracy {accuracy:.1f} %, cross-entropy {loss:.4f}")
        print(f"simulated workers:       test accuracy {simulated.test_accuracy:.1f} %")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
