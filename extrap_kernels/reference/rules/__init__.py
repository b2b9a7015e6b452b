"""The rules: each module has a ``SPEC`` and the arithmetic from the gradient to the update and the direction."""
