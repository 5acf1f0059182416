"""The commands of `mvemo manifest`, run in process."""

from functools import partial

import numpy as np
import pytest
import soundfile
from cal500_samples import SONGS, make_cal500exp
from stage_samples import invoke

from mvemo.extract.duplicates import Search
from mvemo.manifests import BadManifest, Clip, Manifest, read_manifest
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.manifest import manifest, not_compared_lines

run = partial(invoke, manifest)


def refused(*arguments, kind=BadOption):
    """The message of a command that is refused."""
    done = run(*arguments, ends=1)
    assert isinstance(done.exception, kind)
    return str(done.exception)


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "my clips"
    for name in ("Happy", "Rage"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            (folder / name / f"v {name[0]}{i // 2}-{i % 2 + 1}-of-2.mp4").write_bytes(b"x")
    (folder / "Rage" / "notes.txt").write_text("x")
    return folder


MOODS = "file;mood;genre\na.mp3;calm;x\nb.mp3;tense;x\n"
RATED = "clip_id,valence,arousal,valence_std\n1,2,5,1\n2,4,5,0.5\n3,7,1,1\n"
GROUPS = ("The Portait of a Lady", "The Portrait of a Lady", "Symphony 1", "Symphony 2", "Act I")
# Table, words of the command before and after its name, exit code, and a part of what is printed.
COMMANDS = [
    (
        "path,label\na.mp4,y\n" + "".join(f"../{i}.mp4,x\n" for i in range(40)) + "a.mp4,\n",
        "check --no-media",
        2,
        "{t}:3: path '../0.mp4' is not below the media root {r}: give their folder with --root "
        "(and 39 more lines like it)\n{t}:43: empty label: leave the row out with",
    ),
    # Equal messages are one line sooner.
    ("path,label\n" + "a.mp4,x,1\n" * 7, "check --no-media", 2, "{t}:2: the row has 3 cells, the "),
    ("file;V;A;mood\na.mp3;1,5;2;x\nb.mp3;2;3;y\n", "check --no-media", 2, "give --task regr"),
    (MOODS, "check --no-media --column label=mood", 0, "  calm   1\n"),
    (MOODS, "check --no-media --column label=none", 2, "no column 'none' for label"),
    (
        "path,label,group\n"
        + "".join(f"{i}.mp3,{'ab'[i % 2]},{g}\n" for i, g in enumerate(GROUPS)),
        "check --no-media",
        0,
        f"note: groups {GROUPS[0]!r} and {GROUPS[1]!r} are probably the same: pieces of one song "
        "in training and test make scores too high; give both the same name\n",
    ),
    (RATED, "check --no-media", 0, "the number of annotators is unknown"),
    (RATED, "import --no-media --annotators 10 --out {o}", 0, "with 10 annotators R2"),
    (MOODS, "import --no-media --column label=mood --out {o}", 0, "wrote {o}"),
    (
        "id,file,joy\n7,7.mp3,0.5\n8,8.mp3,0.25\n",
        "import --no-media --task regression --column clip_id=id --column valence=joy --out {o}",
        0,
        "valence  0.25 to 0.5, mean 0.375",
    ),
]


@pytest.mark.parametrize(("text", "words", "ends", "message"), COMMANDS)
def test_commands_on_tables(text, words, ends, message, tmp_path):
    names = {"t": tmp_path / "own.csv", "o": tmp_path / "out.csv", "r": repr(str(tmp_path))}
    names["t"].write_text(text)
    command, *options = (word.format(**names) for word in words.split())
    done = run(command, names["t"], *options, ends=ends)
    assert message.format(**names) in done.stderr + done.stdout
    assert names["o"].exists() == ("--out" in words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--column path", "expected OURS=THEIRS"),
        ("--column path=a --column path=b", "given twice"),
        ("--column path=gone --column label=mood", "no column 'gone' for path"),
        ("--column path=file --column label=mood", "none of the 2 media files is below"),
    ],
)
def test_imports_that_are_refused(tmp_path, words, message):
    (tmp_path / "own.csv").write_text(MOODS)
    command = ("import", tmp_path / "own.csv", *words.split(), "--out", tmp_path / "m.csv")
    assert message in refused(*command, kind=(BadManifest, BadOption))
    assert not (tmp_path / "m.csv").exists()


def test_a_clip_that_starts_after_its_files_end_is_found(tmp_path):
    soundfile.write(tmp_path / "b.wav", [0.0] * 8000, 8000)
    table = tmp_path / "m.csv"
    table.write_text("path,label,start,duration\nb.wav,calm,0.5,0.5\nb.wav,tense,3,1\n")
    done = run("check", table, ends=2)
    assert "starts at 3 s, but its file ends at 1.00 s" in done.stderr
    run("check", table, "--no-media")


def test_clips_that_were_not_compared_are_counted(tmp_path):
    clips = tuple(Clip(f"{i}", f"{i}.mp3", ("a",), f"{i}") for i in range(25))
    search = Search((), tuple((f"{i}", "video", "no video stream") for i in range(24)))
    (line,) = not_compared_lines(Manifest("songs", "multiclass", ("a",), clips, tmp_path), search)
    assert line == "24 clips: only sound was compared; the first, 0: no video stream"


def test_segments_of_cal500exp_are_measured(tmp_path):
    folder = make_cal500exp(tmp_path, sound=())
    (folder / "CAL500_32kps").mkdir(exist_ok=True)
    for song, seconds in ((SONGS[0], 19.8), (SONGS[1], 9.25)):
        silence = np.zeros(int(4000 * seconds), np.float32)
        soundfile.write(folder / "CAL500_32kps" / f"{song}.wav", silence, 4000)
    done = run("scan", folder)
    assert "1 segments end up to 0.5 s after their file and are cut there" in done.stderr
    made = read_manifest(folder / "manifest.csv")
    assert [clip.duration for clip in made.clips] == pytest.approx([12.5, 7.3, 6.25])

    silence = np.zeros(4000 * 12, np.float32)
    soundfile.write(folder / "CAL500_32kps" / f"{SONGS[0]}.wav", silence, 4000)
    # The segment to 12.5 s is within the slack.
    message = "2pac-trapped.wav: a segment lasts from 12.5 to 20 s, but the file ends at 12.00 s"
    assert refused("scan", folder, "--force").endswith(message)


def test_nothing_is_replaced_unasked(clips):
    run("scan", clips)
    before = (clips / "manifest.csv").read_text()
    assert "--force" in refused("scan", clips, "--infer-groups")
    assert (clips / "manifest.csv").read_text() == before
    run("scan", clips, "--infer-groups", "--force")
    assert (clips / "manifest.csv").read_text() != before


def test_check_needs_the_media_unless_told_otherwise(clips, tmp_path):
    run("scan", clips)
    copied = tmp_path / "copied.csv"
    copied.write_text((clips / "manifest.csv").read_text())
    run("check", copied, ends=2)
    run("check", copied, "--no-media")
    run("check", copied, "--root", clips)
    done = run("check", clips / "manifest.csv", "--infer-groups", ends=2)
    assert done.stderr.count("from the same source as line") == 6


def test_folds_are_kept_when_clips_go(tmp_path):
    rows = [f"c{i},{i}.wav,{'ab'[i % 2]},g{i}" for i in range(24)]
    for name, some in (("all", rows), ("fewer", rows[3:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["clip_id,path,label,group", *some]))
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    run("folds", tmp_path / "all.csv", "--folds", 3, "--out", old)
    fewer = ["folds", tmp_path / "fewer.csv", "--folds", 3, "--out", new]
    assert "21 of 21 groups keep their earlier folds" in run(*fewer, "--keep", old).output
    assert "has 3 folds of seed 0: use the same, with --folds 3 --seed 0" in refused(
        *fewer, "--keep", old, "--force", "--seed", 1
    )


def test_links_that_were_skipped_are_named(clips, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("Happy", "Rage"):
        (linked / name).symlink_to(clips / name)
    message = "2 links that lead out of it, such as 'Happy': give --follow"
    assert message in refused("scan", linked, kind=BadManifest)
    run("scan", linked, "--follow-links")


def test_declared_layouts_are_listed_and_need_their_media(tmp_path, program):
    listed = program("mvemo", "manifest", "layouts").out
    assert {"deam", "jamendo-mood", "music-video", "ravdess"} <= set(listed.split())
    (tmp_path / "t.csv").write_text("song,v,a\n1,2,3\n2,4,5\n")
    (tmp_path / "own.toml").write_text(
        'name = "own"\ntitle = "A set"\ntask = "regression"\nscale = "1..9"\n'
        '[[table]]\npath = "t.csv"\nid = "song"\n[targets]\nvalence = "v"\narousal = "a"\n'
        '[media]\npath = "{song}.mp3"\n'
    )
    scan = ("mvemo", "manifest", "scan", tmp_path, "--layout", tmp_path / "own.toml")
    assert "give --no-media to list the clips without them" in program(*scan, ends=2).err
    error = program("mvemo", "manifest", "scan", tmp_path, "--layout", "dream", ends=2).err
    assert "unknown layout 'dream'; expected a TOML file, or one of" in error


def test_a_table_of_annotators_out_and_back_in(tmp_path, program):
    (tmp_path / "ratings.csv").write_text(
        "song_id,user_id,valence,arousal\n1,a,2,5\n1,b,4,5\n2,a,7,1\n2,b,8,3\n3,a,1,1\n3,b,3,1\n"
    )
    words = [tmp_path / "ratings.csv", "--no-media"]
    assert "valence: one annotator deviates" in program("mvemo", "manifest", "check", *words).out
    program("mvemo", "manifest", "import", *words, "--out", tmp_path / "clips.csv")
    lines = (tmp_path / "clips.csv").read_text().splitlines()
    header = "clip_id,valence,arousal,group,valence deviation,arousal deviation,annotators"
    assert lines[-4].startswith(f"{header},valence residual deviation,")
    assert lines[-3].startswith("1,3.0,5.0,1,1.414,0,2,0.235702,0.471405,")
    again = program("mvemo", "manifest", "check", tmp_path / "clips.csv", "--no-media").out
    assert "valence: one annotator deviates by 1.22; with 2 annotators R2 cannot exceed" in again


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
    program(*command, "--seconds", 1, "--tail", "drop", "--first", 2)
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
