"""examples/train_ddp.py under torchrun."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_ddp.py"


def test_same_accuracy_as_simulated_workers():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", EXAMPLE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--epochs", "4"], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    real, simulated = (float(found) for found in re.findall(r"test accuracy ([\d.]+) %", done.stdout))
    assert real == simulated > 50
