"""The workflow of a hosted CI: what its jobs call is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()


def test_every_job_calls_a_make_target():
    yaml = pytest.importorskip("yaml")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert {"lint", "test", "arm", "slow", "wheel"} <= set(jobs)
    for name, job in jobs.items():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert len(commands) == 1, name
        target = re.match(r"make (\$\{\{ matrix\.target \}\}|\S+)", commands[0])[1]
        called = job["strategy"]["matrix"]["target"] if "matrix" in target else [target]
        assert set(called) <= targets, name


def test_local_ci_calls_make_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = re.findall(r"^make (.*)$", (ROOT / ".ci/run").read_text(), re.M)
    assert called and {word for line in called for word in line.split() if "=" not in word} <= targets
