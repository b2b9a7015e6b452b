"""The backends, the choice between them, and the plan that runs the steps of a param group."""

# In the order in which "auto" asks them.
from extrap_kernels.backends import cpu, cuda, triton, reference  # noqa: F401, I001
from extrap_kernels.backends.plan import GroupPlan, States, check_gradients
from extrap_kernels.backends.registry import BACKENDS, Backend, check_name, missing_reason, register, resolve
from extrap_kernels.backends.square_sums import direction_square_sums, gradient_square_sum, total_of

__all__ = [
    "BACKENDS",
    "Backend",
    "GroupPlan",
    "States",
    "check_gradients",
    "check_name",
    "direction_square_sums",
    "gradient_square_sum",
    "missing_reason",
    "register",
    "resolve",
    "total_of",
]
