"""Files that appear whole, strict JSON, and CSV rows."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests.errors import BadFile, DiskFailed
from mvemo.manifests.files import (
    cause,
    dump_json,
    replacing,
    replacing_together,
    to_json_values,
    write_json,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("problem", [None, ValueError, KeyboardInterrupt, DiskFailed, BadFile])
def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path, problem):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(problem) if problem else nullcontext(), replacing(path) as temp:
        temp.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        if problem:
            raise problem
    assert path.read_text(encoding="utf-8") == ("old" if problem else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_keeps_all_of_its_files_until_the_new_ones_are_whole(tmp_path):
    run, user_file = tmp_path / "run", tmp_path / "run" / "notes.txt"
    for names in (("a.txt", "b.txt", "model/m.txt"), ("a.txt", "model/m.txt")):
        with replacing_together(run, remove=("b.txt",)) as new:
            (new / "model").mkdir()
            for name in names:
                write_text(new / name, str(names))
        user_file.write_text("mine")
        with (
            pytest.raises(DiskFailed, match=rf"^{run}/none/a.txt: cannot be written"),
            replacing_together(run, remove=("b.txt",)) as new,
        ):
            write_text(new / "none" / "a.txt", "half")
        found = {str(p.relative_to(run)): p.read_text() for p in run.rglob("*.txt")}
        assert found == {**dict.fromkeys(names, str(names)), "notes.txt": "mine"}
    with pytest.raises(DiskFailed), replacing_together(tmp_path / "none"):
        raise OSError("full")
    assert not (tmp_path / "none").exists()


def test_an_error_names_the_file_and_the_cause(tmp_path):
    path = tmp_path / "none" / "a.json"
    with pytest.raises(DiskFailed, match=rf"^{path}: cannot be written: No such file"):
        write_json(path, {})
    with (
        pytest.raises(DiskFailed, match="no space left on the disk; all else is"),
        replacing(tmp_path / "b", kept="; all else is"),
    ):
        raise RuntimeError("H5Dwrite failed (errno = 28, message)")


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("first\nsecond"), "first"),
        (RuntimeError(), "RuntimeError"),
        (OSError("512 requested and 0 written"), "perhaps no space is left on the disk (512 re"),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"),
         "perhaps no space is left on the disk"),
    ],
)  # fmt: skip
def test_causes(problem, expected):
    assert cause(problem).startswith(expected)


def test_new_files_have_the_permissions_of_any_other_and_may_be_written_at_once(tmp_path):
    with replacing(tmp_path / "a") as a, replacing(tmp_path / "b") as b:
        assert a != b
        a.touch()
        b.touch()
    (tmp_path / "plain").touch()
    write_text(tmp_path / "whole", "")
    assert os.stat(tmp_path / "plain").st_mode == os.stat(tmp_path / "whole").st_mode


def test_long_names_and_text_that_utf8_has_no_bytes_for(tmp_path):
    name, path = os.fsdecode(b"b\xe9b\xe9.wav"), tmp_path / ("é" * 125 + ".json")  # 255 bytes
    write_json(path, [name])
    assert json.loads(path.read_text(encoding="utf-8")) == [name]


@settings(max_examples=30)
@given(JSON)
def test_json_is_strict_and_read_back(value):
    text = dump_json(value)
    assert text.endswith("\n")
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert json.loads(text, parse_constant=lambda name: name) == finite


def test_values_of_other_libraries():
    value = {1: np.float32(0.5), "ids": np.arange(2), "flag": np.bool_(True), "set": {"b", "a"}}
    value |= {"path": Path("a"), "pair": (1, np.nan)}
    found = {"1": 0.5, "ids": [0, 1], "flag": True, "set": ["a", "b"], "path": "a"}
    assert to_json_values(value) == {**found, "pair": [1, None]}
    assert type(to_json_values(np.float64(1))) is float
    # Values that JSON has not are text, or refused by name.
    assert to_json_values({"a": [1j]}) == {"a": ["1j"]}
    with pytest.raises(TypeError, match=r"^metrics\.a\[0\] is of type complex"):
        to_json_values({"a": [1j]}, "metrics")


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "report.csv"
    with replacing(path) as own:
        own.write_text("own")
    # More processes than a system has.
    path.with_name(own.name.replace(f"-{os.getpid()}.", "-999999999.")).write_text("left")
    others = [path.with_name(".report.csv.elsewhere-1.tmp"), path.with_name(f"{own.name}.notes")]
    for file in others:
        file.write_text("left")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_device_and_a_pipe_are_written_to_not_replaced(capfd):
    for text in "ab":
        write_text(Path("/dev/stdout"), text)
    assert capfd.readouterr().out == "ab"
    assert Path("/dev/stdout").is_symlink()
    reader, writer = os.pipe()
    write_text(Path(f"/dev/fd/{writer}"), "c")
    assert os.read(reader, 9) == b"c"
    os.close(reader)
    os.close(writer)
    write_text(Path("/dev/null"), "d")
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").is_char_device():
        with pytest.raises(DiskFailed, match="/dev/full: cannot be written: No space left"):
            write_text(Path("/dev/full"), "e")
