"""timm: makes the optimizers known to ``timm.optim.create_optimizer_v2`` and to timm's training script."""

from __future__ import annotations

from inspect import signature

from timm.optim import OptimInfo
from timm.optim._optim_factory import default_registry

from extrap_kernels.factory import optimizers


def register() -> None:
    """Add ``extrapsgd``, ``extrapadam``, ``extrapadamw``, ``extraplars`` and ``extraplamb`` to timm's list.

    The options of extrapolation are then keywords of ``create_optimizer_v2``, or ``--opt-kwargs`` of the script::

        from extrap_kernels.integrations import timm as extrap_timm

        extrap_timm.register()
        optimizer = timm.optim.create_optimizer_v2(model, opt="extrapsgd", lr=0.1, momentum=0.9, weight_decay=1e-4)

    Evaluate and save in ``optimizer.base_parameters()``, as ``examples/timm_loop.py`` shows: timm does neither.
    """
    for name, optimizer_type in optimizers().items():
        accepted = signature(optimizer_type).parameters
        default_registry.register(
            OptimInfo(
                name=f"extrap{name}",
                opt_class=optimizer_type,
                description=f"{optimizer_type.__name__}: gradients at an extrapolated point, one pass over memory",
                has_eps="eps" in accepted,
                has_momentum="momentum" in accepted,
                has_betas="betas" in accepted,
            )
        )
