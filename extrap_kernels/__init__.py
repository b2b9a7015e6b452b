"""Drop-in optimizers for large-batch training by extrapolation, fused into one pass over the buffers.

Source of the method: Lin, Kong, Stich, Jaggi, "Extrapolation for Large-batch Training in Deep Learning", ICML 2020
(arXiv 2006.05720).
"""

# torch comes first: the native module then shares its OpenMP runtime.
import torch  # noqa: F401

from extrap_kernels import _checkout

if not _checkout.replaced_by_installed_copy(__name__):
    from extrap_kernels.adam import ExtrapAdam, ExtrapAdamW
    from extrap_kernels.factory import create
    from extrap_kernels.grouping import param_groups
    from extrap_kernels.lamb import ExtrapLAMB
    from extrap_kernels.lars import ExtrapLARS
    from extrap_kernels.offload import offload
    from extrap_kernels.release import GradientRelease, release_gradients
    from extrap_kernels.sgd import ExtrapSGD

__all__ = [
    "ExtrapAdam",
    "ExtrapAdamW",
    "ExtrapLAMB",
    "ExtrapLARS",
    "ExtrapSGD",
    "GradientRelease",
    "create",
    "offload",
    "param_groups",
    "release_gradients",
]
__version__ = "0.1.0"
