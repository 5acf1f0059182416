"""Files that appear whole, strict JSON, and CSV rows."""

import csv
import io
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests.files import (
    cause,
    dump_json,
    replacing,
    replacing_together,
    to_json_values,
    write_bytes,
    write_json,
    write_text,
)
from mvemo.manifests.tables import BadText, CsvWriter, iter_csv, read_table

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


QUIET: Any = {"capture_output": True, "text": True, "check": True}


class OwnError(Exception):
    pass


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temp:
        temp.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, OSError, RuntimeError])
def test_a_failure_leaves_the_older_file_and_no_other(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with replacing(path) as temp:
            temp.write_text("half", encoding="utf-8")
            raise problem

    with pytest.raises(problem):
        fail_half_way()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_keeps_all_of_its_files_until_the_new_ones_are_whole(tmp_path: Path) -> None:
    run, user_file = tmp_path / "run", tmp_path / "run" / "notes.txt"
    for text in ("old", "new"):
        with replacing_together(run, error=OwnError, remove=("b.txt",)) as new:
            write_text(new / "a.txt", text)
            (new / "model").mkdir()
            write_text(new / "model" / "m.txt", text)
            if text == "old":
                write_text(new / "b.txt", text)
        user_file.write_text("mine")
        with (
            pytest.raises(OwnError, match=rf"^{run}/none/a.txt: cannot be written"),
            replacing_together(run, error=OwnError, remove=("b.txt",)) as new,
        ):
            write_text(new / "none" / "a.txt", "half", error=OwnError)
        assert (run / "a.txt").read_text() == (run / "model" / "m.txt").read_text() == text
        assert (run / "b.txt").exists() == (text == "old")
    assert user_file.read_text() == "mine"
    assert sorted(p.name for p in run.iterdir()) == ["a.txt", "model", "notes.txt"]
    with pytest.raises(OwnError), replacing_together(tmp_path / "none", error=OwnError):
        raise OSError("full")
    assert not (tmp_path / "none").exists()


def test_the_callers_error_names_the_file_and_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.json"
    with pytest.raises(OwnError, match=rf"^{path}: cannot be written: No such file or directory$"):
        write_json(path, {}, error=OwnError)
    with pytest.raises(FileNotFoundError):
        write_bytes(path, b"")
    with (
        pytest.raises(OwnError, match="cannot be written: no space left on the disk; all else is"),
        replacing(tmp_path / "b", error=OwnError, kept="; all else is"),
    ):
        raise RuntimeError("H5Dwrite failed (errno = 28, message)")
    # An error of the caller's own kind passes as it is.
    with pytest.raises(OwnError, match=r"^mine$"), replacing(tmp_path / "b", error=OwnError):
        raise OwnError("mine")


def test_causes() -> None:
    assert cause(OSError(28, "No space left on device")) == "No space left on device"
    assert cause(RuntimeError("first\nsecond")) == "first"
    assert cause(RuntimeError()) == "RuntimeError"
    assert cause(OSError("512 requested and 0 written")).startswith("no space left on the disk?")


def test_new_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "whole", "")
    assert os.stat(tmp_path / "plain").st_mode == os.stat(tmp_path / "whole").st_mode


def test_threads_that_write_files_of_their_own(tmp_path: Path) -> None:
    jobs = [
        threading.Thread(target=write_text, args=(tmp_path / f"{i}.txt", str(i))) for i in range(8)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(p.read_text(encoding="utf-8") for p in tmp_path.iterdir()) == list("01234567")


def test_text_that_utf8_has_no_bytes_for(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe9b\xe9.wav")
    write_json(tmp_path / "a.json", [name])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]


def finite(value: Any) -> Any:
    """`value` with None for every number that is not finite."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(JSON)
def test_json_is_strict_and_read_back(value: Any) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = dump_json(value)
    assert text.endswith("\n")
    assert json.loads(text, parse_constant=refuse) == finite(value)


def test_values_of_other_libraries() -> None:
    value = {
        1: np.float32(0.5),
        "ids": np.arange(2),
        "flag": np.bool_(True),
        "set": {"b", "a"},
        "path": Path("a"),
        "pair": (1, np.nan),
    }
    assert to_json_values(value) == {
        "1": 0.5,
        "ids": [0, 1],
        "flag": True,
        "set": ["a", "b"],
        "path": "a",
        "pair": [1, None],
    }
    assert type(to_json_values(np.float64(1))) is float


def test_values_that_json_has_not_are_text_or_refused_by_name() -> None:
    assert to_json_values({"a": [1j]}) == {"a": ["1j"]}
    with pytest.raises(TypeError, match=r"^metrics\.a\[0\] is a complex"):
        to_json_values({"a": [1j]}, "metrics")


def test_rows_have_the_number_of_their_first_line() -> None:
    lines = ["a,b\n", "\n", '"x\n', 'y",2\n', ",\n", "z,3\n"]
    assert list(iter_csv(lines, first=5)) == [
        (5, ["a", "b"]),
        (7, ["x\ny", "2"]),
        (10, ["z", "3"]),
    ]
    with pytest.raises(BadText, match="not CSV from here on") as caught:
        list(iter_csv(["a\n", "b\n", '"open\n']))
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": the file is empty"),
        (b"a\nb\xff\n", ":2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a\n\0\n", ":2: a zero byte; not a text file"),
        (b'a\n"b', ":2: not CSV from here on: unexpected end of data"),
    ],
)
def test_files_that_are_no_csv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(OwnError) as caught:
        read_table(path, error=OwnError)
    assert str(caught.value) == f"{path}{message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OwnError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv", error=OwnError)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "none.csv", error=OwnError, missing=FileNotFoundError)
    with pytest.raises(OwnError, match="cannot be read: Is a directory"):
        read_table(tmp_path, error=OwnError)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffclip,é\r\n".encode())
    assert read_table(tmp_path / "a.csv", error=OwnError).rows == ((1, ["clip", "é"]),)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **QUIET)
    with replacing(path) as temp:
        temp.write_text("own")
        own = temp.name
    orphan = path.with_name(own.replace(f"-{os.getpid()}.", f"-{int(dead.stdout)}."))
    others = [path.with_name(".report.csv.elsewhere-1.tmp"), path.with_name(f"{own}.notes")]
    for file in (orphan, *others):
        file.write_text("left")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_names_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_formulas_are_harmless_and_read_back(tmp_path: Path) -> None:
    cells = ["=1+1", "@x", "+y", "-z", "\ttab", "'=already", "''-twice", "-1.5", "'plain", "a=b"]
    text = io.StringIO()
    CsvWriter(text).writerow(cells)
    raw = next(csv.reader([text.getvalue()]))
    assert raw[:7] == [f"'{cell}" for cell in cells[:7]]
    assert raw[7:] == cells[7:]
    assert list(iter_csv([text.getvalue()])) == [(1, cells)]


def test_torch_on_a_full_disk_has_our_words() -> None:
    problem = RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")
    assert cause(problem) == "no space left on the disk?"


def test_a_device_and_a_pipe_are_written_to_not_replaced(tmp_path):
    program = (
        "from pathlib import Path; from mvemo.manifests.files import write_text\n"
        "write_text(Path('/dev/stdout'), 'a\\n'); write_text(Path('/dev/stdout'), 'b\\n')\n"
    )
    python = [sys.executable, "-c", program]
    assert subprocess.run(python, **QUIET).stdout == "a\nb\n"
    with (tmp_path / "out").open("w") as out:
        subprocess.run(python, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "a\nb\n"
    assert Path("/dev/stdout").is_symlink()
    write_text(Path("/dev/null"), "c")
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").is_char_device():
        with pytest.raises(OwnError, match="/dev/full: cannot be written: No space left"):
            write_text(Path("/dev/full"), "d", error=OwnError)
