import helpers

# All but what reads the machine code runs the kernels on the CPU.
collect_ignore_glob = [] if helpers.NO_EMULATION is None else ["test_[!s]*.py", "test_sectors.py"]
