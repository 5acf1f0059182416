"""Slim copies, removals, garbage, differences, and checks in a process of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cache_samples import SEQUENCE, VECTOR, contents, crossfit, fill, put, table

from mvemo.cache import (
    BadCache,
    CacheWriter,
    diff_caches,
    open_cache,
    remove_features,
    select_features,
    verify_cache,
    verify_untrusted,
)
from mvemo.cache.writing.lock import WriterLock

CLIPS = table()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    nets = [replace(crossfit(fold, CLIPS), name="c3d") for fold in range(3)]
    fill(path, CLIPS, VECTOR, SEQUENCE, *nets, leave_out="c4")
    with CacheWriter(path, CLIPS, provenance={"command": "more"}) as writer:
        for net in nets:
            put(writer, net, "c0")
        put(writer, SEQUENCE, "c0")
        put(writer, VECTOR, "c0")
        writer.fail("c4", "embed:c3d", "not finite")
        writer.fail("c4", "decode:audio", "no stream")
        writer.curve("c3d@fold0", {"loss": [1.0]})
    return path


def test_a_slim_copy_has_the_same_rows(path: Path, tmp_path: Path) -> None:
    slim = tmp_path / "slim.h5"
    removed = select_features(path, ["mel", "c3d"], slim)
    assert (removed.features, removed.clips, removed.failures) == (("music1d",), (), 0)
    assert verify_cache(slim) == []
    with open_cache(path) as whole, open_cache(slim) as part:
        assert contents(part) == {
            at: row for at, row in contents(whole).items() if at[0] != "music1d"
        }
        assert part.curves == whole.curves
        assert part.provenance == whole.provenance
    assert diff_caches(path, slim) == ["feature music1d is in the first alone"]


def test_removing_takes_curves_and_failures_along(path: Path) -> None:
    size = path.stat().st_size
    removed = remove_features(path, ["c3d"])
    assert (removed.features, removed.curves, removed.failures) == (("c3d",), ("c3d@fold0",), 1)
    assert removed.freed == size - path.stat().st_size > 0
    with open_cache(path) as cache:
        assert cache.names() == ("mel", "music1d")
        assert [failure.stage for failure in cache.failures] == ["decode:audio"]
    with pytest.raises(BadCache, match="no feature 'c3d'; there are mel, music1d"):
        remove_features(path, ["c3d"])


def test_clips_that_are_no_longer_listed_go(path: Path) -> None:
    names = ["mel", "music1d", "c3d"]
    kept = ["c0", "c1", "c2", "c3", "new"]
    before = path.read_bytes()
    assert select_features(path, names, path, clips=kept, dry_run=True).clips == ("c4", "c5")
    assert path.read_bytes() == before
    select_features(path, names, path, clips=kept)
    with open_cache(path) as cache:
        assert cache.table.clip_ids == ("c0", "c1", "c2", "c3")
        assert cache.failures == ()
        assert len(cache.sequence("mel", "c3")) == 4
    with pytest.raises(BadCache, match="none of its 4 clips"):
        select_features(path, names, path, clips=["new"])


def test_differences_of_values_clips_and_parameters(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    assert diff_caches(path, path) == []
    wider = replace(SEQUENCE, params={"n_mels": 3, "sr": 8000})
    with CacheWriter(other, replace(CLIPS, fold_seed=2)) as writer:
        for clip in CLIPS.clip_ids[:5]:
            put(writer, VECTOR, clip, salt=int(clip == "c1"))
            put(writer, wider, clip)
    lines = diff_caches(path, other)
    assert lines[:2] == ["fold seed: 1 and 2", "feature c3d@fold0 is in the first alone"]
    assert "mel: parameter sr None and 8000" in lines
    assert "music1d: only the first has clips 'c5'" in lines
    assert "music1d: only the second has clips 'c4'" in lines
    assert any(line.startswith("music1d: values of 1 of 4 clips differ, by ") for line in lines)
    assert lines[-1] == "failures differ: 'c4' (decode:audio), 'c4' (embed:c3d)"


def test_differences_of_a_nets_outputs(tmp_path: Path) -> None:
    outputs = replace(crossfit(0, CLIPS), name="c3d-outputs", kind="outputs")
    files = [tmp_path / name for name in ("one.h5", "same.h5", "other.h5")]
    for file, salt in zip(files, (0, 0, 1), strict=True):
        with CacheWriter(file, CLIPS) as writer:
            put(writer, outputs, "c0", salt=salt)
    one, same, other = files
    assert diff_caches(one, same) == []
    (line,) = diff_caches(one, other)
    assert line.startswith("c3d-outputs@fold0: values of 1 of 1 clips differ, by ")


def test_checks_in_a_process_of_their_own(path: Path) -> None:
    with pytest.raises(BadCache, match="above 0"):
        verify_untrusted(path, seconds=0)
    assert verify_untrusted(path, seconds=0.01) == [
        "not checked to its end within 0.01 s: do not open it"
    ]
    path.write_bytes(path.read_bytes()[:-900])
    (problem,) = verify_untrusted(path, seconds=120)
    assert "truncated" in problem


def test_without_locks_two_may_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVEMO_NO_LOCK", "1")
    first = WriterLock(path)
    WriterLock(path).release()
    first.release()
    assert not path.with_name("features.h5.parts").exists()
