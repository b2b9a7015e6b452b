"""The small model twice, once with an offloaded optimizer, whose accelerator is another CPU tensor."""

import helpers
import small_net
from late_link import LateLink

from extrap_kernels.offload import offload_over


def offloaded(model, optimizer, bucket_mb=small_net.SMALL):
    """Offload an optimizer over a link that is as late as it may be; it is ``model.link`` then."""
    model.link = LateLink()
    model.link.watch(model)
    return offload_over(model.link, model, optimizer, bucket_mb)


def make_pair(rule="sgd", **options):
    """Return the same model and optimizer twice; the second one is offloaded."""
    pair = [small_net.make("cpu", rule, **options) for _ in range(2)]
    offloaded(*pair[1])
    return pair


def assert_same(pair):
    """Parameters of the models are the same, and what the optimizers hold."""
    (plain, alone), (model, optimizer) = pair
    model.link.compute()
    helpers.assert_same_bits(dict(model.named_parameters()), dict(plain.named_parameters()))
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(alone))
