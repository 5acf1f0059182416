"""``mvemo manifest segment`` on real files."""

import numpy as np
import pytest
import soundfile
from stage_samples import run

from mvemo.manifests import read_manifest


@pytest.fixture
def listed(tmp_path):
    lines = ["path,label,group,start"]
    for name, seconds, start in (("a", 2.5, 0), ("b", 0.7, 0), ("c", 3.2, 1.1)):
        soundfile.write(tmp_path / f"{name}.wav", np.ones(round(seconds * 8000)) / 4, 8000)
        lines.append(f"{name}.wav,{'sad' if name == 'a' else 'happy'},artist {name},{start}")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    lines.append("bad.wav,sad,artist a,0")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    return tmp_path / "m.csv"


def test_files_are_cut_by_their_own_lengths(listed, program):
    out = listed.with_name("s.csv")
    shown = program("mvemo", "manifest", "segment", listed, "--seconds", 1, "--out", out)
    assert "4 clips were split into 7 segments of 1 s" in shown.out
    assert "note: not split:" in shown.err
    assert "bad.wav" in shown.err
    made = read_manifest(out)
    assert [(c.clip_id, c.start, c.duration) for c in made.clips] == [
        *(("a@0", 0.0, 1.0), ("a@1", 1.0, 1.0), ("a@2", 2.0, 0.5), ("b@0", 0.0, None)),
        *(("c@1.1", 1.1, 1.0), ("c@2.1", 2.1, 1.0), ("bad@0", 0.0, None)),
    ]
    assert [c.group[-1] for c in made.clips] == list("aaabcca")


def test_options_and_refusals(listed, program):
    out = listed.with_name("s.csv")
    command = ["mvemo", "manifest", "segment", listed, "--out", out]
    assert run(*command, "--seconds", 1, "--tail", "drop", "--first", 2) == 0
    assert len(read_manifest(out)) == 6
    assert "already exists" in program(*command, ends=2).err
    assert "but it must be above 0" in program(*command, "--force", "--seconds", 0, ends=2).err


def test_missing_files_are_listed_and_the_others_cut(listed, program):
    out = listed.with_name("s.csv")
    command = ["mvemo", "manifest", "segment", listed, "--seconds", 1, "--out", out, "--force"]
    listed.with_name("b.wav").unlink()
    shown = program(*command)
    assert "4 clips were split into 7 segments of 1 s" in shown.out
    (note,) = [line for line in shown.err.splitlines() if "b.wav" in line]
    assert note.startswith("note: not split:")
    made = read_manifest(out, media=False)
    assert [c.clip_id for c in made.clips if c.duration is None] == ["b@0", "bad@0"]
    for name in ("a", "c", "bad"):
        listed.with_name(f"{name}.wav").unlink()
    before = out.read_text()
    (line,) = program(*command, ends=2).err.splitlines()
    assert "none of its 4 media files is in" in line
    assert out.read_text() == before
