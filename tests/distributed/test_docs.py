"""Every example of docs/distributed.md runs in two processes."""

import re
from pathlib import Path

import docs_worker
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
EXAMPLES = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_is_found():
    assert len(EXAMPLES) == PAGE.count("```python") == 6


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example_trains(processes, tmp_path, title, code):
    for changed in processes(2).run(docs_worker.run, code, str(tmp_path / "checkpoint")):
        assert changed == (title != "Checkpoints")
