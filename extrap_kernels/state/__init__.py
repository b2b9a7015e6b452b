"""The state of a parameter: which tensors it has, and the formats that they are stored in."""
