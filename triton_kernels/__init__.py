"""Triton kernels of extrap_kernels; installed as ``extrap_kernels.triton_kernels``. This version has none yet."""
