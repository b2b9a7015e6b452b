"""The backends, the choice between them, and the plan that runs the steps of a param group."""

# In the order in which "auto" asks them.
from extrap_kernels.backends import cpu, cuda, triton, reference  # noqa: F401, I001
from extrap_kernels.backends.plan import GroupPlan, States, check_gradients, gradient_square_sum
from extrap_kernels.backends.registry import BACKENDS, Backend, check_name, missing_reason, register, resolve

__all__ = [
    "BACKENDS",
    "Backend",
    "GroupPlan",
    "States",
    "check_gradients",
    "check_name",
    "gradient_square_sum",
    "missing_reason",
    "register",
    "resolve",
]
