"""What runs on the device: one launch steps a bucket; the twin of ``csrc/core`` and its drivers."""
