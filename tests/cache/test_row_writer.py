"""Writers of a part: what they commit is taken up, by the cache's holder or the next one."""

import pickle
from dataclasses import replace

import pytest
from cache_samples import CLIPS, VECTOR, current, fill, put

from mvemo.cache import CacheWriter, PartWriter, open_cache
from mvemo.cache.table import subset
from mvemo.manifests.errors import MissingFile


@pytest.fixture
def alone(tmp_path):
    """Digest of a cache that one process wrote."""
    fill(tmp_path / "alone.h5", CLIPS, VECTOR)
    return open_cache(tmp_path / "alone.h5").digest()


def part(path, writer, rows):
    """A writer of some clips, as another process has it."""
    clips = subset(CLIPS, rows)
    stored = pickle.loads(pickle.dumps(writer.stored_rows(clips.clip_ids)))
    return PartWriter(path, clips, stored)


def test_parts_and_holder_write_what_one_process_does(path, alone):
    with CacheWriter(path, CLIPS) as writer:
        put(writer, VECTOR, "c0")
        first, second = part(path, writer, [1, 2, 3]), part(path, writer, [3, 4, 5])
        # A row that two of them write is the same row.
        for one, clips in ((first, ("c1", "c2", "c3")), (second, ("c5", "c4", "c3"))):
            assert current(one, VECTOR) == frozenset()
            for clip in clips:
                put(one, VECTOR, clip)
            one.commit()
            writer.take_up(one.parts)
        assert current(writer, VECTOR) == frozenset(CLIPS.clip_ids)
        assert [spec for spec, _ in first.requested] == [VECTOR]
        with pytest.raises(MissingFile, match="no such file"):
            writer.take_up(["00000000-lost.h5"])
    assert open_cache(path).digest() == alone
    assert not path.with_name("features.h5.parts").exists()


def test_the_next_writer_takes_up_what_parts_committed_to_one_that_was_killed(path, alone):
    old = replace(VECTOR, params={"sr": 8000})
    writer = CacheWriter(path, CLIPS)
    put(writer, old, "c1")
    writer.commit()
    one = part(path, writer, [1, 2])
    put(one, VECTOR, "c1")
    put(one, VECTOR, "c2")
    one.commit()
    put(one, VECTOR, "c1")  # lost, because it is not committed
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with CacheWriter(path, CLIPS) as writer:
        rows = writer.stored_rows(["c1", "c4"]).keys
        stored = {digest: set(clips) for digest, clips in rows.items() if clips}
        assert stored == {old.digest: {"c1"}, VECTOR.digest: {"c1"}}
        # No row is written that is there.
        assert current(part(path, writer, list(range(6))), VECTOR) == {"c1", "c2"}
        for clip in ("c0", "c3", "c4", "c5"):
            put(writer, VECTOR, clip)
    # The part's shard is the newer one: its parameters stay.
    assert open_cache(path).digest() == alone


def test_a_part_forgets_failures_that_it_was_told_of(path):
    with CacheWriter(path, CLIPS) as writer:
        writer.fail("c0", "decode:audio", "cut off")
        writer.fail("c5", "decode:audio", "cut off")
        one = part(path, writer, [0, 1])
        one.clear_failures("c0", "decode:audio")
        one.fail("c1", "decode:audio", "empty")
        one.commit()
        writer.take_up(one.parts)
    left = [(f.clip_id, f.reason) for f in open_cache(path).failures]
    assert left == [("c1", "empty"), ("c5", "cut off")]
