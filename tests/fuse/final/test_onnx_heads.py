"""Heads as ONNX graphs give the outputs of `predict_clips`."""

from dataclasses import replace

import numpy as np
import pytest

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.model import predict_clips
from mvemo.fuse.final.model_files import load_model
from mvemo.fuse.final.onnx_heads import write_onnx
from mvemo.fuse.models import WITH_KERNEL
from mvemo.pipeline.models.boxed import boxed_names, model_folder

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", boxed_names())
def test_a_graph_agrees_with_every_predictor_of_a_bundled_model(name, tmp_path):
    model = load_model(model_folder(name))
    rng = np.random.default_rng(0)
    vectors = {
        key: one.mean + 2 * one.scale * rng.normal(size=(50, len(one.mean)))
        for key, one in model.reference.items()
    }
    for predictor in model.predictors:
        path = tmp_path / "heads.onnx"
        inputs = write_onnx(model, predictor, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == list(inputs)
        read = {one.partition("@")[0]: one for one in inputs}
        given = {read[key[0]]: values for key, values in vectors.items() if key[0] in read}
        (found,) = session.run(None, given)
        expected = predict_clips(model, predictor, vectors)
        # The kernel of mvemo computes in single precision.
        tolerance = 1e-4 if predictor.name in WITH_KERNEL else 1e-9
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=tolerance)
        assert session.get_modelmeta().custom_metadata_map["outputs"].split("\n") == [
            *model.classes
        ]


def test_a_model_that_compares_clips_of_a_folder_is_refused(tmp_path):
    model = load_model(model_folder(boxed_names()[0]))
    within = replace(model, facts={**model.facts, "within_groups": True})
    with pytest.raises(BadFeatures, match="standardises the clips of a folder"):
        write_onnx(within, model.predictors[0], tmp_path / "x.onnx")
