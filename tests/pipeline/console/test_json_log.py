"""Messages as lines of JSON: each with time, run and event, and nothing else on stderr."""

import json

import pytest
from stage_samples import run


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "nosuch.mp3"],
        ["predict", "--log-format", "text", "nosuch.mp3", "--log-format", "json"],
        ["--log-format", "json", "predict", "nosuch.mp3"],
    ],
)
def test_a_clip_and_a_summary_have_an_event_each(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    if "--log-format" not in arguments:
        arguments = [*arguments, "--log-format", "json"]
    assert run("mvemo", *arguments) == 2
    found = events(capsys)
    assert len({event["run"] for event in found}) == 1
    by_kind = {event["event"]: event for event in found}
    assert by_kind["clip"]["clip"] == "nosuch.mp3"
    assert by_kind["clip"]["reason"] == "no such file"
    assert (by_kind["summary"]["clips"], by_kind["summary"]["failed"]) == (1, 1)
    assert list(by_kind)[-1] == "end"
    assert by_kind["end"]["status"] == 2


@pytest.mark.parametrize("problem", [["fuse", "nosuch.h5"], ["fuse", "--no-option"], ["fusee"]])
def test_an_error_is_an_event(capsys, problem):
    assert run("mvemo", "--log-format", "json", *problem) == 2
    error, end = events(capsys)
    assert (error["event"], end["event"], end["status"]) == ("error", "end", 2)
    assert problem[-1] in error["text"]


def test_text_is_the_default(capsys):
    assert run("mvemo", "fuse", "nosuch.h5") == 2
    assert capsys.readouterr().err == "mvemo: nosuch.h5: no such file\n"
