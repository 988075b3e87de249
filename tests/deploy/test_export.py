"""Exported files, run by other runtimes, against the network itself."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine import Config
from torch import nn

from nfnet_mm import commands
from nfnet_mm.deploy import deployed, export_model, fold
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BNResNet, NFNet
from nfnet_mm.models.layers import WSConv2d
from nfnet_mm.models.layers.padding import avg_pool2d_same, pad_same
from nfnet_mm.registry import MODELS
from nfnet_mm.run import load_trained
from nfnet_mm.run.folded import FoldHook
from tests.deploy.test_fold import NETWORKS, SMALL, random_network
from tests.stacks import needs_torch

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')

ROOT = Path(__file__).parents[2]
DEMOS = ROOT / 'demo' / 'configs'
DIGITS = str(DEMOS / 'classify_nfnet_nano_digits.py')


@pytest.fixture(scope='module')
def nfnet(tmp_path_factory):
    """A network whose SAME padding differs between odd and even sizes, and its ONNX file."""
    net, path = random_network('nfnet'), str(tmp_path_factory.mktemp('onnx') / 'net.onnx')
    return net, path, export_model(deployed(net), path, metadata=dict(mean='[1.0]'))


@pytest.mark.parametrize('size', [(33, 34), (65, 50), (97, 131), (64, 160), (225, 32)])
def test_onnx_at_any_size_against_the_unfolded_network(nfnet, size):
    net, path, _ = nfnet
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    assert [one.name for one in session.get_outputs()] == ['stage1', 'stage2', 'stage3', 'stage4', 'feature']
    images = torch.randn(size[0] % 3 + 1, 3, *size)
    with torch.no_grad():
        expected = net.eval()(images)
    for ours, theirs in zip(expected, session.run(None, {'images': images.numpy()})):
        assert np.linalg.norm(ours.numpy() - theirs) <= 1e-5 * np.linalg.norm(ours)


def test_the_graph_holds_plain_convs(nfnet):
    net, path, exported = nfnet
    model = onnx.load(path)
    stored = {one.name for one in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == 'Conv']
    assert len(convs) == sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert all(name in stored for node in convs for name in node.input[1:])
    counted = exported.operators
    assert counted['BatchNormalization'] == counted['ReduceSum'] == counted['Sqrt'] == 0
    assert counted['ReduceMean'] == counted['Sigmoid'] == 5  # the attention of five blocks, and nothing else
    assert counted['Gelu'] + counted['Tanh'] == 24 and counted['Conv'] == 29  # one of the two, by the opset
    assert {one.key: one.value for one in model.metadata_props}['mean'] == '[1.0]'


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NETWORKS if name not in ('nfnet', 'stage')])
@pytest.mark.parametrize('suffix', ['.onnx', '.pt'])
def test_every_family_and_dialect(name, suffix, tmp_path):
    found = export_model(deployed(random_network(name)), tmp_path / f'x{suffix}')
    assert len(found.differences) == 5 and found.worst <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NETWORKS if name != 'stage'])
def test_openvino(name, tmp_path):
    pytest.importorskip('openvino')
    assert export_model(deployed(random_network(name)), tmp_path / 'x.xml').worst <= 2e-6
    assert sorted(os.listdir(tmp_path)) == ['x.bin', 'x.xml']


@pytest.mark.slow
@needs_torch(2, 6, 'Dim.DYNAMIC of torch.export')
@pytest.mark.parametrize('name', ['timm', 'nf_resnet'])
def test_torch_export(name, tmp_path):
    assert export_model(deployed(random_network(name)), tmp_path / 'x.pt2').worst <= 2e-6


def test_an_old_opset(tmp_path):
    export_model(deployed(random_network('nf_resnet')), tmp_path / 'x.onnx', opset=17)
    assert onnx.load(tmp_path / 'x.onnx').opset_import[0].version == 17


@pytest.mark.parametrize('kernel,stride,dilation', [(3, 2, 1), (7, 2, 1), (3, 2, 4), (1, 2, 1), (2, 1, 1), (5, 4, 1)])
def test_traced_padding_is_the_eager_one(kernel, stride, dilation):
    """At sizes that the trace has not seen, against the rule itself."""
    if kernel < stride:
        pytest.skip('no padding at any size')

    def function(x):
        padded, both = pad_same(x, kernel, stride, dilation)
        return nn.functional.pad(padded, (both[1], both[1], both[0], both[0]))

    traced = torch.jit.trace(function, torch.zeros(1, 1, 8, 9), check_trace=False)
    for height in range(1, 12):
        x = torch.rand(1, 1, height, 23 - height)
        assert torch.equal(traced(x), function(x))


def test_traced_pooling_is_the_eager_one():
    traced = torch.jit.trace(avg_pool2d_same, torch.zeros(1, 1, 8, 8), check_trace=False)
    for size in ((1, 1), (5, 6), (6, 5), (7, 7)):
        x = torch.rand(1, 2, *size)
        torch.testing.assert_close(traced(x), avg_pool2d_same(x))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('classify_nfnet_nano_digits', marks=SLOW),
        pytest.param('fcn_nfnet_nano_digits', marks=SLOW),
        'depth_nfnet_nano_rooms',
    ],
)
def test_whole_models(name, tmp_path, capsys):
    """The command, on networks of the tasks; what comes out is what the framework's own model says of a picture."""
    path, cfg = str(tmp_path / 'x.onnx'), Config.fromfile(DEMOS / f'{name}.py')
    torch.manual_seed(0)
    weights = str(tmp_path / 'x.pth')
    model, _ = load_trained(cfg, None)
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    commands.main('export', [str(DEMOS / f'{name}.py'), weights, path, '--size', '64', '96', '--with-preprocessing'])
    assert float(re.search(r'worst relative difference (\S+) of', capsys.readouterr().out)[1]) <= 1e-5
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 97, 66)).astype(np.float32)  # RGB
    given = model.data_preprocessor
    normal = (torch.from_numpy(picture) - given.mean.view(1, -1, 1, 1)) / given.std.view(1, -1, 1, 1)
    with torch.no_grad():
        out = model(normal, mode='tensor')
        if hasattr(model, 'decode_head'):
            out = nn.functional.interpolate(out, size=(97, 66), mode='bilinear', align_corners=False)
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    theirs = session.run(None, {'images': picture})[0]
    assert np.linalg.norm(out.numpy() - theirs) <= 1e-5 * np.linalg.norm(theirs)
    told = session.get_modelmeta().custom_metadata_map
    assert told['input'] == 'RGB, values from 0 to 255' and told['stride'] in ('4', '8', '32')


def test_the_script_of_the_page(tmp_path, monkeypatch):
    """Ten lines with onnxruntime alone."""
    cv2 = pytest.importorskip('cv2')
    monkeypatch.chdir(tmp_path)
    commands.main('export', [DIGITS, 'none', 'digits.onnx', '--with-preprocessing', '--size', '64', '64'])
    cv2.imwrite('photo.png', np.random.default_rng(0).integers(0, 256, (70, 65, 3), dtype=np.uint8))
    text = (ROOT / 'docs/export.md').read_text()
    code = re.search(r'```python\n(import onnxruntime.*?)```', text, re.S)[1]
    found = {}
    exec(compile(code, 'export.md', 'exec'), found)
    assert found['scores'].shape == (1, 10) and abs(found['scores'].sum() - 1) < 1e-5


def error_of(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        commands.main('export', list(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    'argv,says',
    [
        (('x.onnx', '--opset', '16'), 'opset=16 must be from 17 to'),
        (('x.onnx', '--opset', '99'), 'opset=99 must be from 17 to'),
        (
            ('x.onnx', '--size', '31', '64'),
            "size=31x64 is under the network's stride: height and width are at least 32",
        ),
        (('x.zip',), "'x.zip' tells no format by its suffix: it is one of .onnx (onnx)"),
        (
            ('x.bin', '--format', 'onx'),
            "format='onx' is not one of onnx, openvino, torch, torchscript, checkpoint. Did",
        ),
        (('missing/x.onnx',), "the folder 'missing' to write 'x.onnx' to does not exist"),
    ],
)
def test_what_cannot_be(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in error_of(capsys, DIGITS, 'none', *argv)
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_of_another_network(capsys, tmp_path):
    torch.save(dict(state_dict=BNResNet(SMALL).state_dict(), meta={}), tmp_path / 'other.pth')
    assert 'is not of this model' in error_of(capsys, DIGITS, str(tmp_path / 'other.pth'), str(tmp_path / 'x.onnx'))


@pytest.mark.parametrize('package,suffix', [('onnx', 'onnx'), ('onnxruntime', 'onnx'), ('openvino', 'xml')])
def test_a_missing_package(package, suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, package, None)
    with pytest.raises(UserError, match=rf'{package} is needed for this export .* pip install "nfnet_mm\[export\]"'):
        export_model(deployed(random_network('nf_resnet')), tmp_path / f'x.{suffix}')
    assert os.listdir(tmp_path) == []


def test_a_test_run_scores_the_folded_network():
    """In the place of the runner's model, before the first batch."""
    runner = SimpleNamespace(model=random_network('nfnet').eval())
    images, net = torch.randn(1, 3, 64, 50), runner.model
    FoldHook().before_test(runner)
    assert not any(isinstance(module, WSConv2d) for module in runner.model.modules())
    with torch.no_grad():
        for one, other in zip(runner.model(images), net(images)):
            assert (one - other).norm() <= 2e-6 * other.norm()


def test_batch_norm_is_refused(tmp_path):
    """Where no conv before it takes it in."""
    with pytest.raises(UserError, match='the graph has 1 nodes of batch normalisation'):
        export_model(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), tmp_path / 'x.onnx')


def test_a_file_that_disagrees_is_not_kept(tmp_path):
    with pytest.raises(UserError, match='the onnx file is .* from the model at .*, over 0e\\+00'):
        export_model(deployed(NFNet('nano')), tmp_path / 'x.onnx', bound=0.0)
    assert os.listdir(tmp_path) == []


def test_a_folded_checkpoint(tmp_path, capsys):
    """It is loaded into the folded model, and refused by the one that standardises."""
    from nfnet_mm.engine.strict_load import mismatches

    torch.manual_seed(0)
    cfg = Config.fromfile(DIGITS)
    model, _ = load_trained(cfg, None)
    for name, p in model.named_parameters():
        if name.endswith('gain'):
            nn.init.normal_(p, 1.0, 0.3)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'whole.pth')
    path = str(tmp_path / 'folded.pth')
    commands.main('export', [DIGITS, str(tmp_path / 'whole.pth'), path])
    again, meta = load_trained(cfg, path)
    assert meta['folded'] is True
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images, mode='tensor'), fold(model)(images, mode='tensor'), rtol=0, atol=0)
    (line,), _, fits = mismatches(MODELS.build(cfg.model), torch.load(path, weights_only=True))
    assert line.startswith('it is folded') and not fits
