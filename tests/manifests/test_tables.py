"""List cells, and Parquet tables (by pyarrow if it is installed, otherwise by a stand-in)."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests import BadManifest, read_manifest
from mvemo.manifests.tables import format_names, parse_names

names = st.lists(st.text(min_size=1).filter(lambda t: t == t.strip()), max_size=4)


@given(names, st.sampled_from([",", ";"]))
def test_lists_of_names_are_read_back(listed: list[str], separator: str) -> None:
    assert parse_names(format_names(listed, separator), separator) == listed


def test_bad_lists_are_named() -> None:
    with pytest.raises(ValueError, match="not a JSON list"):
        parse_names('["a"', ",")
    with pytest.raises(ValueError, match="not text"):
        parse_names("[1]", ",")


def test_plain_lists_forgive_blanks() -> None:
    assert parse_names(" a ,b,, c", ",") == ["a", "b", "c"]


COLUMNS = {
    "song": ["a.mp3", "b.mp3"],
    "mood": [["calm", "sad"], []],
    "energy": [0.5, None],
    "live": [True, False],
}


def stand_in(monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[object]]) -> None:
    table = SimpleNamespace(to_pydict=lambda: columns)
    parquet = ModuleType("pyarrow.parquet")
    parquet.ParquetFile = lambda path: SimpleNamespace(read=lambda: table)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)


def test_a_table_of_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, COLUMNS)
    columns = {"path": "song", "label": "mood"}
    path = tmp_path / "t.parquet"
    manifest = read_manifest(path, columns=columns, task="multilabel", media=False)
    assert [clip.label for clip in manifest.clips] == [("calm", "sad"), ()]
    assert manifest.notes == ()


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadManifest, match=r"^[^\n]*needs pyarrow: 'pip install pyarrow'[^\n]*$"):
        read_manifest(tmp_path / "t.parquet", task="multilabel", media=False)


def test_a_real_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(COLUMNS), tmp_path / "t.parquet")
    columns = {"path": "song", "live": "live"}
    manifest = read_manifest(
        tmp_path / "t.parquet", columns=columns, task="multilabel", media=False
    )
    assert manifest.labels.tolist() == [[1], [0]]
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no table")
    with pytest.raises(BadManifest, match="not Parquet"):
        read_manifest(tmp_path / "t.parquet", media=False)


def test_the_duration_in_a_table_of_predict_with_a_cache_is_no_stretch(tmp_path: Path) -> None:
    path = tmp_path / "songs.csv"
    header = "path,model,label,confidence,notes,error,content,duration,version,date,seconds"
    rows = [f"{x}.wav,m/late,{x},0.9,,,0,1.0,0.1.0,now,0.2" for x in ("calm", "sad")]
    path.write_text("\n".join([header, *rows]))
    manifest = read_manifest(path, media=False)
    assert manifest.clip_ids == ("calm", "sad")
    assert [clip.duration for clip in manifest.clips] == [None, None]
    assert manifest.predicted_by == "m"
