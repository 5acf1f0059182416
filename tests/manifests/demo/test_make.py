"""The demo set on disk: whole, the same every time, and finished after a kill."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests import BadManifest, Manifest, check_manifest, read_manifest
from mvemo.manifests.demo import make_demo
from mvemo.manifests.demo.media import FPS, HEIGHT, SR, WIDTH

av = pytest.importorskip("av")

SECONDS = 1.0


def small(folder: Path, **changes: object) -> Manifest:
    settings = {"clips_per_class": 2, "seconds": SECONDS} | changes
    return make_demo(folder, **settings)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Made once, for the tests that only look."""
    return small(tmp_path_factory.mktemp("demo"))


def test_manifest_is_good_and_says_that_it_is_synthetic(made: Manifest) -> None:
    table = made.root / "manifest.csv"
    assert check_manifest(table, infer_groups=True) == []
    found = read_manifest(table)
    assert found.synthetic
    assert "# synthetic: true" in table.read_text()
    assert found.digest == made.digest
    assert found.classes == ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
    assert Counter(found.labels.tolist()) == dict.fromkeys(range(6), 2)
    assert len(set(found.clip_ids)) == 12


def test_labels_are_folders_and_groups_lie_in_one_class(tmp_path: Path) -> None:
    manifest = small(tmp_path, clips_per_class=3, clips_per_group=2, seconds=0.5)
    assert Counter(Counter(manifest.groups).values()) == {2: 6, 1: 6}
    for clip in manifest.clips:
        assert clip.path.split("/")[1] == clip.label[0]
        assert clip.group.startswith(str(clip.label[0]).lower())


def test_files_have_both_streams_at_their_length(made: Manifest) -> None:
    for clip in made.clips:
        with av.open(str(made.media_path(clip))) as media:
            (video,), (audio,) = media.streams.video, media.streams.audio
            assert video.codec_context.name in ("h264", "mpeg4")
            assert audio.codec_context.name == "aac"
            assert (video.width, video.height) == (WIDTH, HEIGHT)
            assert (audio.rate, audio.channels) == (SR, 2)
            pictures = [float(f.pts * f.time_base) for f in media.decode(video=0)]
        with av.open(str(made.media_path(clip))) as media:
            samples = sum(frame.samples for frame in media.decode(audio=0))
        assert pictures == sorted(set(pictures))
        assert pictures[0] == 0
        assert pictures[-1] == pytest.approx(SECONDS - 1 / FPS, abs=1e-3)
        # AAC has frames of 1,024 samples, and one before the start.
        assert SECONDS * SR <= samples <= SECONDS * SR + 3 * 1024


def test_some_files_have_a_variable_frame_rate(tmp_path: Path) -> None:
    manifest = small(tmp_path, clips_per_class=4)
    steady = []
    for clip in manifest.clips:
        with av.open(str(manifest.media_path(clip))) as media:
            steps = np.diff([f.pts for f in media.decode(video=0)])
        steady.append(bool(np.ptp(steps) == 0))
    assert any(steady)
    assert not all(steady)


def test_same_seed_same_bytes(made: Manifest, tmp_path: Path) -> None:
    small(tmp_path)
    assert contents(tmp_path) == contents(made.root)


def test_another_seed_gives_other_media(made: Manifest, tmp_path: Path) -> None:
    other = small(tmp_path, seed=1)
    assert other.digest == made.digest  # same names and labels
    ours, theirs = contents(made.root), contents(tmp_path)
    assert all(ours[clip.path] != theirs[clip.path] for clip in made.clips)


def test_a_finished_set_is_reused(made: Manifest) -> None:
    before = times(made.root)
    reports: list[tuple[int, int]] = []
    again = small(made.root, progress=lambda done, of: reports.append((done, of)))
    assert again == made
    assert times(made.root) == before
    assert reports == []


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    small(tmp_path, clips_per_class=1, seconds=0.5, progress=lambda *step: reports.append(step))
    assert reports == [(i, 6) for i in range(1, 7)]


def test_damage_is_repaired(made: Manifest, tmp_path: Path) -> None:
    manifest = small(tmp_path)
    first, second = (manifest.media_path(clip) for clip in manifest.clips[:2])
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    table = tmp_path / "manifest.csv"
    table.write_text(table.read_text().replace("Sad,sad_01", "Fear,sad_01"))
    small(tmp_path)
    assert contents(tmp_path) == contents(made.root)


def test_other_settings_replace_the_set_and_nothing_else(made: Manifest, tmp_path: Path) -> None:
    small(tmp_path, clips_per_class=3, seconds=0.5, seed=5)
    mine = tmp_path / "media" / "Sad" / "holiday.mp4"
    mine.write_bytes(b"not of the demo")
    small(tmp_path)
    assert mine.read_bytes() == b"not of the demo"
    mine.unlink()
    assert contents(tmp_path) == contents(made.root)


KILLED = """
import os, signal, sys
from mvemo.manifests.demo import make_demo
print("ready", flush=True)
make_demo(sys.argv[1], clips_per_class=2, seconds=1.0,
          progress=lambda done, of: done == 5 and os.kill(os.getpid(), signal.SIGKILL))
"""
REPORT = "print(done, flush=True)"


def test_a_killed_run_looks_unfinished_and_is_completed(made: Manifest, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "manifest.csv").exists()
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert 5 <= len(left) < 12
    # What a kill in the middle of a file leaves.
    (tmp_path / "media" / "Sad" / ".sad_01-1-of-2.mp4.host-1.tmp").write_bytes(b"half")
    reports: list[int] = []
    small(tmp_path, progress=lambda done, of: reports.append(done))
    assert reports == list(range(len(left) + 1, 13))
    assert all(path.stat().st_mtime_ns == when for path, when in left.items())
    assert contents(tmp_path) == contents(made.root)


def test_a_kill_at_any_time_leaves_whole_files_only(made: Manifest, tmp_path: Path) -> None:
    whole = contents(made.root)
    # It reports each file that is written, and is killed while it writes the second.
    script = KILLED.replace("done == 5 and os.kill(os.getpid(), signal.SIGKILL)", REPORT)
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    assert run.stdout.readline() == "1\n"
    run.kill()
    run.wait()
    run.stdout.close()
    for name, digest in contents(tmp_path).items():
        if name.endswith(".mp4") and not name.split("/")[-1].startswith("."):
            assert digest == whole[name]
    small(tmp_path)
    assert contents(tmp_path) == whole


def test_a_users_own_manifest_is_left_alone(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text("path,label\n")
    with pytest.raises(BadManifest, match=r"manifest\.csv.*own"):
        small(tmp_path)
    assert table.read_text() == "path,label\n"


def test_a_foreign_settings_file_does_not_stop_it(tmp_path: Path) -> None:
    for text in ("[]", "{", json.dumps({"settings": 3, "bytes": 4})):
        (tmp_path / "demo.json").write_text(text)
        assert len(small(tmp_path, clips_per_class=1, seconds=0.5)) == 6
        (tmp_path / "manifest.csv").unlink()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clips_per_class": 0}, "clips_per_class is 0"),
        ({"clips_per_group": -1}, "clips_per_group is -1"),
        ({"seconds": 0.1}, "seconds is 0.1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_numbers_are_named(tmp_path: Path, changes: dict[str, float], named: str) -> None:
    with pytest.raises(BadManifest, match=named):
        small(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    from mvemo.manifests import ManifestError

    with pytest.raises(ManifestError, match="cannot be written") as caught:
        small(tmp_path / "file" / "demo")
    assert "\n" not in str(caught.value)


def test_importing_manifests_needs_no_media_library() -> None:
    script = (
        "import sys; import mvemo.manifests, mvemo.manifests.demo; "
        "sys.exit(bool({'av', 'cv2', 'torch'} & set(sys.modules)))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", script], check=False, env=env).returncode == 0
