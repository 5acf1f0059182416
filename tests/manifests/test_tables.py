"""CSV, Parquet and Excel tables, and their cells."""

import csv
import io
import os
import sys

import openpyxl
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests import read_manifest
from mvemo.manifests.errors import BadFile, MissingFile
from mvemo.manifests.files import shown
from mvemo.manifests.tables import CsvWriter, format_names, parse_names, read_table
from mvemo.manifests.text_table import align_columns, html_table, listed, shown_name

names = st.lists(st.text(min_size=1).filter(lambda t: t == t.strip()), max_size=4)


@given(names, st.sampled_from([",", ";"]))
def test_lists_of_names_are_read_back(listed, separator):
    assert parse_names(format_names(listed, separator), separator) == listed


def test_lists_of_names_with_blanks():
    assert parse_names(" a ,b,, c", ",") == ["a", "b", "c"]


def rows_of(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path).rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (
            '# x: y\na,b\n\n"x\ny",2\n,\nz,3\n',
            ((2, ["a", "b"]), (4, ["x\ny", "2"]), (7, ["z", "3"])),
        ),
        ('lyrics\n"you\nand me"\n', ((1, ["lyrics"]), (2, ["you\nand me"]))),
        # A comma in quotes separates no cells.
        ('path;"high, low"\na;0.5\n', ((1, ["path", "high, low"]), (2, ["a", "0.5"]))),
        ("sep=|\n\na|b,c\n", ((3, ["a", "b,c"]),)),
        # A byte-order mark is not text.
        ("\ufeffclip,é\r\n", ((1, ["clip", "é"]),)),
        ("clip,é\r\n".encode("utf-16"), ((1, ["clip", "é"]),)),
        # A comma in a name is no separator if there are more semicolons.
        ("a (1,2);b;c\nx;y;z\n", ((1, ["a (1,2)", "b", "c"]), (2, ["x", "y", "z"]))),
        # Decimal commas stay until the meaning of a column is known.
        ("a;b\n1,5;1,5\n-2;x\n;\n", ((1, ["a", "b"]), (2, ["1,5", "1,5"]), (3, ["-2", "x"]))),
    ],
)
def test_rows_have_the_number_of_their_first_line(tmp_path, content, rows):
    assert rows_of(tmp_path / "a.csv", content) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": the file is empty"),
        (b"a\nb\xff\n", ":2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"\xff\xfea\0b", ":1: byte 0x62 is not UTF-16; save the file as UTF-8"),
        (b"a\n\0\n", ":2: the line has a zero byte; this is not a text file"),
        (b'a\nb\n"c', ":3: the file is not CSV from this line on: unexpected end of data"),
    ],
)
def test_files_that_are_no_csv(tmp_path, content, message):
    with pytest.raises(BadFile) as caught:
        rows_of(tmp_path / "a.csv", content)
    assert str(caught.value) == f"{tmp_path}/a.csv{message}"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(BadFile, match="cannot be read: Is a directory"):
        read_table(tmp_path)


def test_formulas_are_harmless_and_read_back(tmp_path):
    cells = ["=1+1", "@x", "+y", "-z", "\ttab", "'=already", "''-twice", "-1.5", "'plain", "a=b"]
    text = io.StringIO()
    CsvWriter(text).writerow(cells)
    raw = next(csv.reader([text.getvalue()]))
    assert raw == [f"'{cell}" for cell in cells[:7]] + cells[7:]
    assert rows_of(tmp_path / "a.csv", text.getvalue()) == ((1, cells),)


COLUMNS = {"song": ["a.mp3", "b.mp3"], "mood": [["calm", "sad"], []], "energy": [0.5, None]}
COLUMNS["live"] = [True, False]


def test_parquet_tables(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pandas.DataFrame(COLUMNS).to_parquet(path)
    columns = {"path": "song", "label": "mood"}
    manifest = read_manifest(path, columns=columns, task="multilabel", media=False)
    assert [clip.label for clip in manifest.clips] == [("calm", "sad"), ()]
    assert manifest.notes == ("columns that are not used: 'live'",)
    columns = {"path": "song", "live": "live"}
    manifest = read_manifest(path, columns=columns, task="multilabel", media=False)
    assert manifest.labels.tolist() == [[1], [0]]
    path.write_bytes(b"PAR1 and no table")
    with pytest.raises(BadFile, match="not Parquet"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadFile, match=r"^[^\n]*needs pyarrow: run 'pip install[^\n]*$"):
        read_table(path)


def test_excel_tables(tmp_path, monkeypatch):
    path, book = tmp_path / "t.xlsx", openpyxl.Workbook()
    # A boolean among words is a word.
    rows = [(), ("Track", "Mood", "Live"), ("a", True, True), ("b", "calm", False), (3, None, 0.5)]
    for row in rows:
        book.active.append(row)
    book.create_sheet("none")
    book.save(path)
    expected = [["Track", "Mood", "Live"], ["a", "TRUE", "1"], ["b", "calm", "0"], ["3", "", "0.5"]]
    assert read_table(path).rows == tuple(enumerate(expected, start=2))
    book["none"]["A1"] = "x"
    book.save(path)
    with pytest.raises(BadFile, match="expected one sheet with cells, got 'Sheet', 'none'"):
        read_table(path)
    path.write_bytes(b"no workbook")
    with pytest.raises(BadFile, match="not an Excel table"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BadFile, match=r"^[^\n]*needs openpyxl: run 'pip install[^\n]*$"):
        read_table(path)


def test_the_duration_in_a_table_of_predict_with_a_cache_is_no_stretch(tmp_path):
    path = tmp_path / "songs.csv"
    header = "path,model,label,confidence,notes,error,content,duration,version,date,seconds"
    rows = [f"{x}.wav,m/late,{x},0.9,,,0,1.0,0.1.0,now,0.2" for x in ("calm", "sad")]
    path.write_text("\n".join([header, *rows]))
    manifest = read_manifest(path, media=False)
    assert manifest.clip_ids == ("calm", "sad")
    assert [clip.duration for clip in manifest.clips] == [None, None]
    assert manifest.predicted_by == "m"


def test_text_for_terminals_and_notebooks():
    rows = [("net", "clips"), ("音", "98"), ("e\u0301", "100")]
    assert align_columns(rows) == ["net  clips", "音      98", "e\u0301      100"]
    assert shown_name("a\nb.mp3") == r"a\nb.mp3"
    assert shown_name("folder/" + 18 * "song") == "…" + (18 * "song")[1:]
    assert (listed(["a", "b", "c"], most=2), listed(["a"])) == ("a, b and 1 more", "a")
    assert "<tr><td>a&lt;b</td></tr></table>" in html_table("nets", ("net",), [("a<b",)])
    assert shown("9" * 5000, most=10) == "'9999999' (5000 characters)"


@pytest.mark.parametrize(
    "text",
    [
        'id\ttitle\tlabel\n1\t"Heroes\tx\n2\tSong\ty\n3\tBar"\tx\n4\tz\ty\n',
        'id;title;label\n1;"Heroes;x\n3;Bar";x\n',
        'id,title,label,by\n1,"Heroes,x,a\n2,"",y,b\n3,Bar",x,c\n',
        'id,title,label\n1,"Heroes,x\n2,"Song, two",y\n3,Bar",x\n',
        'id,title,label\n1,"Heroes" (live),x\n2,b,y\n',
        'id,title,label\n1,"Heroes,x\n2,b,y\n',
    ],
)
def test_stray_quotes_join_no_rows(tmp_path, text):
    with pytest.raises(BadFile, match=r"a\.csv:2: .*(delete stray quotes|is not CSV from)"):
        rows_of(tmp_path / "a.csv", text)


def test_cells_of_several_lines_and_literal_quotes(tmp_path):
    text = 'id,lyrics,label\n1,"I, you,\nwe, they",x\n2,"a\n\nb, c",y\n3,12" Mix,y\n'
    _, *cells = (cells[1] for _, cells in rows_of(tmp_path / "a.csv", text))
    assert cells == ["I, you,\nwe, they", "a\n\nb, c", '12" Mix']


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_without_a_writer_is_empty(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(BadFile, match="is empty"):
        read_table(tmp_path / "t.csv")
