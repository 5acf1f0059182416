"""Descriptors in the working cache: only what is not there is computed."""

import numpy as np
from media_samples import sine

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.store import described
from mvemo.extract.store.decoded import DecodedStore
from mvemo.extract.store.described import DescribedStore, describe_many
from mvemo.extract.store.folders import DecodeJob, DecodeRequest, array_path
from mvemo.extract.workers.pool import Outcome
from mvemo.extract.workers.process import resolve

SMALL = {"sr": 8000, "n_fft": 512, "hop_length": 256, "n_mels": 16, "n_mfcc": 8}


def test_a_setting_that_one_descriptor_depends_on_computes_no_other(tmp_path, monkeypatch):
    asked = []

    def here(calls, *, workers):
        for index, call in enumerate(calls):
            asked.append(set(call.arguments[3]))
            problem = resolve(call.function)(*call.arguments)
            assert not problem
            yield Outcome(index, problem)

    monkeypatch.setattr(described, "run_calls", here)
    decoded = DecodedStore(tmp_path, DecodeRequest((8000,)))
    decoded.assign_folder(DecodeJob("clip", tmp_path / "clip.wav", "content"))
    path = array_path(decoded.folder_of("clip"), 8000)
    path.parent.mkdir(parents=True)
    np.save(path, sine(0.3, 8000)[0])
    names = ["mfcc_rp", "chroma"]
    found = []
    for alpha in (0.5, 0.0, 0.5):
        settings = DescriptorSettings(**SMALL, alpha=alpha)
        store = DescribedStore(decoded, settings, names)
        kept = describe_many(store, ["clip"], workers=1)
        found.append((kept, store.joined("clip", names)))
    assert asked == [{"mfcc_rp", "chroma"}, {"mfcc_rp"}]
    assert [kept for kept, _ in found] == [0, 0, 1]
    (_, first), (_, other), (_, again) = found
    assert np.array_equal(first, again)
    assert np.array_equal(first[:, 8:], other[:, 8:])
    assert not np.allclose(first[:, :8], other[:, :8])
