"""An accelerator that is another CPU tensor, reached by copies that are as late as they may be.

What is read or written too early shows: the target of a copy holds NaN until somebody waits for it, and a source must
not change before it is copied.
"""

import helpers
import torch


class _Copy:
    def __init__(self, link, name, pairs):
        self.link, self.name = link, name
        self.pairs = [(source, target, source.clone()) for source, target in pairs]
        for _, target in pairs:
            target.fill_(torch.nan)  # autograd counts this write; the real copy below is not one more

    def run(self):
        for source, target, expected in self.pairs:
            helpers.assert_same_bits(source, expected, f"written before {self.name} was done")
            target.data.copy_(expected)

    def synchronize(self):
        self.link.log.append(f"host waits for {self.name}")
        self.link.run_to(self)


class LateLink:
    """See :class:`extrap_kernels.link.Link`.

    Attributes:
        log: what was begun and waited for, in order.
    """

    device = torch.device("cpu")

    def __init__(self):
        self.log, self._queues, self._count = [], {"download": [], "upload": []}, 0

    def host_memory(self, like):
        return torch.full_like(like, torch.nan, requires_grad=False)

    def _begin(self, direction, pairs):
        self._count += 1
        copy = _Copy(self, f"{direction} {self._count}", pairs)
        self.log.append(copy.name)
        self._queues[direction].append(copy)
        return copy

    def download(self, source, target):
        self.compute()
        return self._begin("download", [(source, target)])

    def upload(self, copies):
        self.compute()
        return self._begin("upload", copies)

    def run_to(self, copy):
        """Do what stands before ``copy`` in its stream, and ``copy``."""
        queue = self._queues[copy.name.split()[0]]
        while copy in queue:
            queue.pop(0).run()

    def compute(self):
        """The accelerator computes something: it waits for uploads, and the host does not."""
        queue = self._queues["upload"]
        while queue:
            queue.pop(0).run()

    def watch(self, model):
        """Let forward passes of ``model`` wait, as those of an accelerator do."""
        model.register_forward_pre_hook(lambda *_: self.compute())


class PromptLink(LateLink):
    """Copies to the accelerator at once, as if it computed all the time."""

    def upload(self, copies):
        """See :class:`extrap_kernels.link.Link`."""
        copied = super().upload(copies)
        self.compute()
        return copied
