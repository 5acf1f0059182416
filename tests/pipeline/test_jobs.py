"""Stage one by two processes: what one process writes; one that fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from spread_samples import Sounds, digest, extract, make_sounds

from mvemo.cache import open_cache
from mvemo.pipeline import tasks


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    return make_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_two_processes_write_what_one_does(
    kind: str, sounds: Sounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(sounds, kind, tmp_path / "one") == 0
    monkeypatch.setattr(tasks, "BATCH", 4)
    assert extract(sounds, kind, tmp_path / "two", "--jobs", 2) == 0
    with (
        open_cache(tmp_path / "one" / "features.h5") as one,
        open_cache(tmp_path / "two" / "features.h5") as two,
    ):
        assert two.digest() == one.digest()
        assert two.curves == one.curves
        assert [f.reason for f in two.failures] == [f.reason for f in one.failures]
    assert not list((tmp_path / "two").glob("*.parts"))
