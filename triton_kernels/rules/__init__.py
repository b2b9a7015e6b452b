"""One module for each rule, named as in ``extrap_kernels.reference.rules``; :mod:`..variants` finds it by that name."""
