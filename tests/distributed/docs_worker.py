"""What each process does in test_docs.py."""

import torch


def loss_of(model, batch):
    return model(batch).square().mean()


def run(code, folder):
    """Run an example on a small model; whether the model has changed."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
    batches = [torch.randn(4, 6) for _ in range(3)]
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    exec(code, {"model": model, "batches": batches, "loss_of": loss_of, "folder": folder})
    after = [getattr(p, "full_tensor", lambda p=p: p)().detach().flatten() for p in model.parameters()]
    return not torch.equal(torch.cat(after), before)
