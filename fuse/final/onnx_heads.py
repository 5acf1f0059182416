"""Heads of a model folder as an ONNX graph, from features to the outputs of `predict_clips`.

The graph computes in double precision, as mvemo does. Its inputs are the features of one
predictor, float64 (clips, dim), and its only output is float64 (clips, outputs).
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor, feature_heads, second_layer
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.kernel import FLOOR
from mvemo.fuse.numeric import MIN_PROBABILITY, Link
from mvemo.fuse.tasks import task_of
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import write_bytes

# Version of the operators; all of them exist since 2021.
OPSET = 15
OUTPUT = "outputs"


def write_onnx(model: FinalModel, predictor: Predictor, path: Path) -> tuple[str, ...]:
    """Write the heads of a predictor as an ONNX file; return the names of its inputs."""
    if model.within_groups:
        raise BadFeatures(
            f"{model.name}: standardises the clips of a folder together, which ONNX cannot state"
        )
    try:
        onnx: Any = import_module("onnx")
    except ImportError as error:
        raise BadOption("--onnx: needs the package onnx: pip install onnx") from error
    graph = _Graph(onnx)
    outputs = graph.outputs_of(model, predictor)
    if task_of(model.task).exclusive and predictor.temperature != 1:
        logs = graph.add("Log", graph.add("Max", outputs, graph.constant(np.finfo(float).tiny)))
        scaled = graph.add("Div", logs, graph.constant(predictor.temperature))
        outputs = graph.add("Softmax", scaled, axis=-1)
    graph.nodes.append(onnx.helper.make_node("Identity", [outputs], [OUTPUT]))
    helper, double = onnx.helper, onnx.TensorProto.DOUBLE
    shapes = [("clips", dim) for dim in graph.inputs.values()]
    inputs = [
        helper.make_tensor_value_info(name, double, shape)
        for name, shape in zip(graph.inputs, shapes, strict=True)
    ]
    last = helper.make_tensor_value_info(OUTPUT, double, ("clips", len(model.classes)))
    model_proto = helper.make_model(
        helper.make_graph(graph.nodes, predictor.name, inputs, [last], graph.constants),
        producer_name="mvemo",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    facts = {"model": model.name, "task": model.task, "outputs": "\n".join(model.classes)}
    helper.set_model_props(model_proto, facts)
    onnx.checker.check_model(model_proto)
    write_bytes(path, model_proto.SerializeToString())
    return tuple(graph.inputs)


class _Graph:
    """Nodes of a graph that mirrors `Head.predict` and the layers over heads."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: dict[str, int] = {}  # name of an input to its number of columns

    def add(self, operator: str, *values: str, **attributes: Any) -> str:
        """Add a node, and return the name of its result."""
        name = f"{operator.lower()}{len(self.nodes)}"
        node = self._onnx.helper.make_node(operator, list(values), [name], **attributes)
        self.nodes.append(node)
        return name

    def constant(self, value: float | NDArray[Any]) -> str:
        """Add a constant in double precision, and return its name."""
        name = f"constant{len(self.constants)}"
        array = np.asarray(value, np.float64)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def outputs_of(self, model: FinalModel, predictor: Predictor) -> str:
        """Add the outputs of a predictor, before the temperature."""
        layer = second_layer(model, predictor)
        if layer is None:
            heads = feature_heads(model, predictor)
            found = [self._head(h, self._features(model, h, predictor)) for h in heads]
            if len(found) == 1:
                return found[0]
            return self.add("Div", self.add("Sum", *found), self.constant(float(len(found))))
        by_name = {m.name: m for m in model.heads.models}
        bases = []
        for name in layer.features:
            one = by_name[name]
            base = self.outputs_of(model, Predictor(one.name, one.features, one.modalities, {}))
            bases.append(self._decision_inputs(base, layer.link))
        return self._head(layer, self.add("Concat", *bases, axis=1))

    def _features(self, model: FinalModel, head: Head, predictor: Predictor) -> str:
        names = []
        for feature in predictor.features:
            key: FeatureKey = feature, head.net_fold
            if key not in model.reference:
                key = feature, None
            name = feature if key[1] is None else f"{feature}@fold{key[1]}"
            self.inputs[name] = len(model.reference[key].mean)
            names.append(name)
        return self.add("Concat", *names, axis=1)

    def _head(self, head: Head, x: str) -> str:
        z = self.add("Sub", x, self.constant(head.mean))
        z = self.add("Div", z, self.constant(head.scale))
        if head.limit is not None:
            z = self.add("Clip", z, self.constant(-head.limit), self.constant(head.limit))
        if head.rows is None or head.factor is None:
            scores = self.add("MatMul", z, self.constant(head.coef.T))
            scores = self.add("Add", scores, self.constant(head.intercept))
            link = {"softmax": "Softmax", "sigmoid": "Sigmoid"}.get(head.link)
            outputs = self.add(link, scores) if link else scores
        else:
            outputs = self._kernel(head, z)
        if head.ends is None:
            return outputs
        low, high = map(self.constant, head.ends)
        return self.add("Min", self.add("Max", outputs, low), high)

    def _kernel(self, head: Head, z: str) -> str:
        """Add a kernel head, see `mvemo.fuse.heads.kernel`."""
        assert head.rows is not None
        assert head.factor is not None
        z = self.add("Mul", z, self.constant(head.factor))
        length = self.add("ReduceL2", z, axes=[1], keepdims=1)
        # Rows of zeros stay zero.
        unit = self.add("Div", z, self.add("Max", length, self.constant(np.finfo(float).tiny)))
        product = self.add("MatMul", unit, self.constant(head.rows.T))
        two = self.constant(2.0)
        power = self.add("Sub", self.add("Mul", product, two), two)
        kernel = self.add("Add", self.add("Exp", power), self.constant(1.0))
        scores = self.add("MatMul", kernel, self.constant(head.coef.T))
        scores = self.add("Add", scores, self.constant(head.intercept))
        if head.link == "softmax":
            logs = self.add("Log", self.add("Max", scores, self.constant(FLOOR)))
            return self.add("Softmax", self.add("Mul", logs, self.constant(head.slope)), axis=-1)
        return self._probable(scores) if head.link == "sigmoid" else scores

    def _probable(self, values: str) -> str:
        low, high = self.constant(MIN_PROBABILITY), self.constant(1.0 - MIN_PROBABILITY)
        return self.add("Clip", values, low, high)

    def _decision_inputs(self, outputs: str, link: Link) -> str:
        """Add the inputs of a second layer, see `mvemo.fuse.numeric.decision_inputs`."""
        if link == "identity":
            return outputs
        if link == "softmax":
            return self.add("Log", self.add("Max", outputs, self.constant(MIN_PROBABILITY)))
        p = self._probable(outputs)
        return self.add("Log", self.add("Div", p, self.add("Sub", self.constant(1.0), p)))
