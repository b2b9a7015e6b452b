"""Microbenchmarks: ``python -m bench``. Ratios of medians, from interleaved runs of one process."""
