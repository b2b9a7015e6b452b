"""Plain-PyTorch twins of the native kernels: slow, readable, and what every backend is tested against."""
