"""Progress where stderr is no terminal."""

from __future__ import annotations

import pytest

from mvemo.pipeline import progress
from mvemo.pipeline.progress import Progress


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    with Progress("decode", 4) as bar:
        bar.step(failed=1)
        bar.note("clip 2")
        bar.step(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("decode: 1 of 4 clips, 1 failed, about ")
    assert lines[1].endswith(" left, clip 2")
    assert lines[2:] == ["decode: 4 of 4 clips, 1 failed, clip 2", "decode: 4 done, 1 failed"]


def test_short_work_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("decode", 4) as bar:
        bar.step(4)
    assert capsys.readouterr().err == "decode: 4 done\n"
