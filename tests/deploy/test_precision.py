"""Half precision and 8-bit integers, against float32 and against the integers' own resolution."""

import numpy as np
import pytest
import torch
from mmengine import Config
from torch import nn

from nfnet_mm.deploy import deployed, evaluate, export_model, half, quantize, worst_difference
from nfnet_mm.deploy.calibration import calibration_images
from nfnet_mm.errors import UserError
from nfnet_mm.models import NFNet
from tests.stacks import needs_torch

SMALL = dict(widths=(16, 32, 32, 48), depths=(1, 1, 1, 1), group_width=8)


def network():
    torch.manual_seed(0)
    net = NFNet(dict(SMALL), out_indices=(1, 3)).eval()
    for name, p in net.named_parameters():
        if name.endswith('skip_gain'):
            nn.init.constant_(p, 0.5)
    return net


@pytest.mark.parametrize(
    'name,least,most',
    [('bf16', 1e-3, 3e-2), pytest.param('fp16', 1e-4, 4e-3, marks=needs_torch(2, 3, 'convs in float16 on a CPU'))],
)
def test_half_precision(name, least, most):
    """The error is of the order of the format's unit roundoff, 2^-9 and 2^-12, times a few layers; and not zero."""
    net, images = network(), torch.randn(2, 3, 64, 50)
    lower = half(net, name)
    with torch.no_grad():
        outputs, expected = lower(images), net(images)
    assert all(one.dtype is torch.float32 for one in outputs)
    assert least < worst_difference(outputs, expected) < most
    assert all(p.dtype is torch.float32 for p in net.parameters())


def test_no_such_precision():
    with pytest.raises(UserError, match="half='bf61' is none of bf16, fp16. Did you mean 'bf16'?"):
        half(network(), 'bf61')


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_quantised(tmp_path, runtime):
    """All convs' weights; noise of 8 bits, about one percent in a layer, adds up over the network's fourteen convs."""
    onnx, ort = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    net = network()
    export_model(deployed(net), tmp_path / 'a.onnx')
    batches = [np.random.default_rng(i).standard_normal((2, 3, 64, 64), np.float32) for i in range(4)]
    quantize(str(tmp_path / 'a.onnx'), str(tmp_path / 'b.onnx'), batches, runtime)
    graph = onnx.load(tmp_path / 'b.onnx').graph
    integers = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    convs = [node for node in graph.node if node.op_type == 'Conv']
    assert len(integers) == len(convs) > 10
    session = ort.InferenceSession(tmp_path / 'b.onnx', providers=['CPUExecutionProvider'])
    images = torch.from_numpy(batches[0])
    with torch.no_grad():
        expected = net(images)
    found = [torch.from_numpy(one) for one in session.run(None, dict(images=images.numpy()))]
    assert 1e-3 < worst_difference(found, expected) < 0.15


def test_what_cannot_be_quantised(tmp_path):
    pytest.importorskip('onnxruntime')
    with pytest.raises(UserError, match="runtime='openvin' is none of onnxruntime, openvino. Did you mean"):
        quantize('a.onnx', 'b.onnx', [], 'openvin')
    with pytest.raises(UserError, match="ONNX file 'nothing.onnx' does not exist"):
        quantize('nothing.onnx', 'b.onnx', [])
    export_model(deployed(network()), tmp_path / 'a.onnx')
    with pytest.raises(UserError, match='no pictures to calibrate with'):
        quantize(str(tmp_path / 'a.onnx'), str(tmp_path / 'b.onnx'), [])
    assert not (tmp_path / 'b.onnx').exists()
    with pytest.raises(UserError, match='no pictures to calibrate with'):
        calibration_images(Config(), None, [])


def test_evaluation_takes_the_functions_answers():
    """Top-1 of a made-up function of the pixels, that the network knows nothing of; the network is back afterwards."""

    class Head:
        @staticmethod
        def _get_predictions(logits, samples):
            return logits.argmax(1).tolist()

    class Classifier:
        head = Head()

        def predict(self, inputs, data_samples=None):
            return [-1] * len(inputs)

    class Runner:
        model = Classifier()

        def test(self):
            found = self.model.predict(torch.eye(3), None)
            return dict(right=sum(one == i for i, one in enumerate(found)))

    runner = Runner()
    assert evaluate(runner, lambda inputs: inputs) == dict(right=3)
    assert evaluate(runner) == dict(right=0)
    runner.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match='Linear is no classifier, detector, segmentor or depth estimator'):
        evaluate(runner, lambda inputs: inputs)
