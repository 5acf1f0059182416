"""What stage one says of where its nets run."""

from __future__ import annotations

import pytest

from mvemo.extract.settings import RunSettings
from mvemo.pipeline.stage_one.execution import Execution
from mvemo.pipeline.stage_one.steps import tell_device


@pytest.mark.parametrize(
    ("execution", "words"),
    [
        (Execution(), "nets run on the processor ("),
        # More than there are cores: a thread each.
        (
            Execution(jobs=4096),
            "in up to 4096 processes, each on the processor (1 thread),",
        ),
        (Execution(scheduler="tcp://head:8786"), "nets run on the workers of tcp://head:8786"),
    ],
)
def test_it_says_what_nets_run_on(
    execution: Execution, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_device(RunSettings(device="cpu", precision="float32"), execution)
    captured = capsys.readouterr()
    assert words in captured.out + captured.err
