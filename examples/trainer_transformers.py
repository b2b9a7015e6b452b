"""ExtrapSGD under Hugging Face's Trainer: a tiny GPT-2 learns to count, evaluated and saved at the base iterate."""

from __future__ import annotations

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from extrap_kernels import ExtrapSGD
from extrap_kernels.integrations.transformers import ExtrapolationCallback

STEPS = 60


def main() -> None:
    """Train on sequences n, n+1, n+2, ... and print the loss on held-out sequences."""
    torch.set_num_threads(1)  # the tensors are tiny
    torch.manual_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(8) + torch.randperm(56)[:, None]]
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=8, n_embd=32, n_layer=1, n_head=2))
    optimizer = ExtrapSGD(model.parameters(), lr=0.3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=folder,
                max_steps=STEPS,
                per_device_train_batch_size=24,
                eval_strategy="steps",
                eval_steps=20,
                save_steps=30,
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=rows[:48],
            eval_dataset=rows[48:],
            optimizers=(optimizer, scheduler),
            # Trainer evaluates at the base iterate by itself; the callback makes it save that, too. Trainer clips to
            # max_grad_norm=1.0 by default; the optimizer's own option of that name would clip again.
            callbacks=[ExtrapolationCallback()],
        )
        trainer.train()
        print(f"loss {trainer.evaluate()['eval_loss']:.3f}")


if __name__ == "__main__":
    main()
