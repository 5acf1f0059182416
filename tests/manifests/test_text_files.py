"""JSON and TOML that other readers crash on, or misread, are answered in one line."""

import json
import os

import pytest

from mvemo.manifests.errors import BadFile, MissingFile, MvemoError
from mvemo.manifests.text_files import parse_json, parse_toml, read_json, read_toml

# Value of a key in JSON or TOML, and the reason in the message.
BAD = [
    ("[" * 3000 + "]" * 3000, "nested too deeply"),
    ("[" * 300 + "]" * 300, "nested too deeply"),
    ("9" * 5000, "a number has too many digits"),
    ("[1, " + "9" * 400 + "]", "expected a finite number, got 999"),
    ("1e999", "a: expected a finite number, got inf"),
]
JSON = [
    *((f'{{"a": {value}}}', why) for value, why in BAD),
    *((f'{{"a": [{{"b": {v}}}]}}', "a.0.b: expected a finite n") for v in ("NaN", "-Infinity")),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
    ('{"a": "\xff"}', "byte 0xff is not UTF-8"),
    ("", "not JSON"),
    ("[1]", "expected a JSON object, got '[1]'"),
]
TOML = [
    *((f"a = {value}", why) for value, why in BAD),
    ("a.b = nan", "a.b: expected a finite number, got nan"),
    ("a" + ".a" * 3000 + " = 1", "nested too deeply"),
    ("a = 1\na = 2", "not TOML: "),
    ("a = '\xff'", "byte 0xff is not UTF-8"),
]


@pytest.mark.parametrize(("read", "contents"), [(read_json, JSON), (read_toml, TOML)])
def test_every_fault_is_one_line(read, contents, tmp_path):
    path = tmp_path / "a"
    for text, why in contents:
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(MvemoError) as caught:
            read(path)
        line = str(caught.value)
        assert (str(path) in line, why in line, len(line.splitlines())) == (True, True, 1)
        assert len(line) < 400


def test_what_is_not_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_toml):
        with pytest.raises(MissingFile, match="none: no such file"):
            read(tmp_path / "none")
        for name in ("folder", "pipe"):
            with pytest.raises(BadFile, match=f"{name}: expected a file, got a folder, pipe"):
                read(tmp_path / name)


def test_valid_files(tmp_path):
    value = {"a": [1, {"b": 2.5}], "c": {"d": "é"}, "e": True}
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(value), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.toml").write_text("a = [1, {b = 2.5}]\nc.d = 'é'\ne = true", encoding="utf-8")
    assert read_toml(tmp_path / "a.toml") == value
    assert parse_json("1e300") == 1e300
    assert parse_toml("a = -1e300") == {"a": -1e300}
