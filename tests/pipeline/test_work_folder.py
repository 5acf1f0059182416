"""What the working folder takes, and what of it `clean-work` removes."""

import pytest
from click.testing import CliRunner

from mvemo.cache import CacheBusy
from mvemo.cache.parts import locked_cache
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.cache import cache
from mvemo.pipeline.commands.doctor import check_work
from mvemo.pipeline.stage_one.summary import ExtractSummary
from mvemo.pipeline.work_folder import WorkSize, clean_work, measure_work


@pytest.fixture
def work(tmp_path):
    """3 MiB of decoded media, 2 MiB of nets, and what stays."""
    folder = tmp_path / "work"
    for name, size in (("decoded/ab/cd/16000.npy", 3 << 20), ("nets/c3d-fold0/w.pt", 2 << 20)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(size))
    (folder / "features.h5").write_bytes(b"kept")
    (folder / "folds.csv").write_text("kept")
    return folder


def clean(*options):
    return CliRunner().invoke(cache, ["clean-work", *map(str, options)])


def test_the_size_is_told(work):
    assert measure_work(work) == WorkSize(3 << 20, 2 << 20)
    text = "5 MiB: decoded media 3 MiB, trained nets 2 MiB"
    assert check_work(work).text.endswith(f"; it takes {text}")
    absent = ("song", "video", "no video stream")
    summary = ExtractSummary(work / "features.h5", 13, ("c3d",), (), (absent,), work=work).text()
    assert f"{work} takes {text}; 'mvemo cache clean-work {work}'" in summary
    lacks = "1 of 13 clips have no video, which counts as missing, not as failed; the first, song: "
    assert f"{lacks}no video stream\n" in summary
    assert "failures" not in summary
    assert measure_work(work / "none") == WorkSize(0, 0)


def test_decoded_media_go_and_all_else_stays(work):
    done = clean(work, "--dry-run")
    assert done.output == f"{work}: would remove 3 MiB: decoded media 3 MiB, trained nets 0 MiB\n"
    assert (work / "decoded").is_dir()
    assert clean(work).exit_code == 0
    assert sorted(p.name for p in work.iterdir()) == ["features.h5", "folds.csv", "nets"]
    assert clean(work, "--nets").exit_code == 0
    assert sorted(p.name for p in work.iterdir()) == ["features.h5", "folds.csv"]


def test_other_folders_are_refused(work, tmp_path):
    with pytest.raises(BadOption, match="not a work folder"):
        clean_work(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (work / "decoded").rename(elsewhere)
    (work / "decoded").symlink_to(elsewhere)
    with pytest.raises(BadOption, match="is a link"):
        clean_work(work)
    assert (elsewhere / "ab").is_dir()


@pytest.mark.parametrize("name", ["features.h5", "features.h5.shards/1-of-2.h5"])
def test_a_folder_that_a_run_uses_is_left_alone(name, work):
    (work / name).parent.mkdir(exist_ok=True)
    with locked_cache(work / name):
        with pytest.raises(CacheBusy):
            clean_work(work)
        assert measure_work(work).decoded
    clean_work(work)
    assert not measure_work(work).decoded
