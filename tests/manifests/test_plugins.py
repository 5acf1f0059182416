"""Plug-ins of packages and files: names, precedence, records and problems."""

import pytest

from mvemo.manifests import plugins as module
from mvemo.manifests.errors import BadOption


class Point:
    """Entry point of another package."""

    def __init__(self, name, result, package="other", module="other.parts"):
        self.name, self.result, self.module = name, result, module
        self.dist = type("Dist", (), {"name": package, "version": "1.2"})

    def load(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def installed(monkeypatch):
    points = []
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    monkeypatch.setattr(module, "_FILES", {kind: {} for kind in module.KINDS})
    module._installed.cache_clear()
    yield points
    module._installed.cache_clear()


def write(folder, text, name="own.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_packages_are_found_without_import_and_broken_ones_are_named(installed):
    installed += [Point("good", 3), Point("bad", ImportError("no  module\nx"))]
    found = module.plugins("nets")
    assert sorted(found) == ["bad", "good"]
    assert found["good"].load() == 3
    with pytest.raises(BadOption, match=r"^bad: other cannot provide this net: .*no module x$"):
        found["bad"].load()
    with pytest.raises(BadOption, match=r"^good: other cannot provide this net: too small$"):
        found["good"].load(lambda value: "too small")


def test_a_name_belongs_to_mvemo_then_to_a_file_then_to_the_first_package(installed, tmp_path):
    installed += [Point("a", "z's", "z"), Point("a", "b's", "b"), Point("b", "b's", "b")]
    installed += [Point("c", "b's", "b"), Point("c", "ours", "mvemo", "mvemo.pipeline.x")]
    module.load_files([write(tmp_path, 'PLUGINS = {"mvemo.heads": {"b": 1, "c": 2}}')])
    found = {name: each.load() for name, each in module.plugins("heads").items()}
    assert found == {"a": "b's", "b": 1, "c": "ours"}


def test_a_file_is_loaded_once_and_its_digest_follows_its_text(installed, tmp_path):
    path = write(tmp_path, 'PLUGINS = {"mvemo.nets": {"a": object()}}')
    module.load_files([path, str(path)])
    first = module.plugins("nets")["a"]
    module.load_files([path])
    assert module.plugins("nets")["a"] is first
    assert module.loaded_files() == (str(path),)
    assert first.record() == {"source": "own.py", "version": "", "digest": first.digest}
    assert module.plugin_record("nets", "a") == {"plugin": first.record()}
    assert module.plugin_record("nets", "b") == {}
    copy = write(tmp_path, path.read_text() + "\n", "copy.py")
    module.load_files([copy])
    assert module.plugins("nets")["a"].digest != first.digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1", "expected a dict PLUGINS"),
        ("PLUGINS = {}", "expected a dict PLUGINS"),
        ('PLUGINS = {"mvemo.net": {}}', "mvemo.net: expected a dict of objects for one of"),
        ('PLUGINS = {"mvemo.nets": [1]}', "mvemo.nets: expected a dict of objects for one of"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def f(:", "cannot be imported: SyntaxError"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(installed, tmp_path, text, problem):
    path = write(tmp_path, text)
    with pytest.raises(BadOption) as caught:
        module.load_files([path])
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not module.loaded_files()


def test_a_reserved_name_cannot_be_taken(installed, monkeypatch):
    installed += [Point("a", 1), Point("b", 2)]
    monkeypatch.setitem(module._RESERVED, "heads", set())
    assert module.reserve("heads", iter("a")) == ("a",)
    assert list(module.plugins("heads")) == ["b"]
    assert [*module.offered("a", "heads")] == ["a", "b"]
    assert module.plugin_record("heads", "a") == {}


def test_another_machine_gets_the_files_and_must_have_the_packages(
    installed, tmp_path, monkeypatch
):
    installed.append(Point("a", 1, module="json.decoder"))
    module.load_files([write(tmp_path, 'PLUGINS = {"mvemo.nets": {"b": 2}}')])
    packed = module.packed_plugins()
    monkeypatch.setattr(module, "_FILES", {kind: {} for kind in module.KINDS})
    there = tmp_path / "there"
    there.mkdir()
    for _ in range(2):
        module.unpack_plugins(*packed, there)
    assert module.plugins("nets")["b"].load() == 2
    assert module.loaded_files() == (str(there / "own.py"),)
    assert module.packed_plugins()[1] == packed[1]
    installed[0].module = "json.encoder"
    module._installed.cache_clear()
    monkeypatch.setattr(module, "code_digest", lambda name: name)
    with pytest.raises(BadOption, match=r"^mvemo.nets: a: this machine has another one, of other:"):
        module.unpack_plugins(*packed, there)
    installed.clear()
    module._installed.cache_clear()
    with pytest.raises(BadOption, match=r"^mvemo.nets: a: this machine lacks it: install"):
        module.unpack_plugins(*packed, there)
