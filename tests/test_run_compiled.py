"""``compile`` in a config: what is compiled, and that a training is the same."""

import copy

import pytest
import torch
from mmengine import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

from nfnet_mm import run
from nfnet_mm.deploy import fold
from nfnet_mm.errors import UserError
from nfnet_mm.models import NFNet
from nfnet_mm.run.compiled import compile_options
from tests.toy import CONFIG, ToyNumbers

TINY = dict(widths=(16, 32, 32, 48), depths=(1, 1, 1, 1), group_width=8)


@MODELS.register_module(force=True)
class CompiledNet(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = NFNet(TINY, drop_path_rate=0)
        for p in self.backbone.parameters():
            torch.nn.init.normal_(p, std=0.1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        found = self.backbone(torch.stack(inputs))[-1]
        return dict(loss=found.square().mean()) if mode == 'loss' else found.mean((1, 2, 3))


@DATASETS.register_module(force=True)
class CompiledPictures(ToyNumbers):
    def __init__(self):
        super().__init__()
        self.inputs = torch.randn(32, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def config(folder, **more):
    cfg = Config.fromstring(CONFIG, '.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset = dict(type='CompiledPictures')
    cfg.model = dict(type='CompiledNet')
    cfg.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=4)
    cfg.optim_wrapper = dict(
        type='nfnet_mm.AGCOptimWrapper',
        constructor='nfnet_mm.NFOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9),
    )
    cfg.merge_from_dict(dict(work_dir=str(folder), **more))
    return cfg


@pytest.mark.slow
def test_a_training_is_the_same_and_only_the_backbone_is_compiled(tmp_path):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = []
    for name, more in (('eager', {}), ('compiled', dict(compile=dict(backend='aot_eager')))):
        runner = run.build_runner(config(tmp_path / name, **more))
        runner.train()
        found.append(runner.model)
    eager, compiled = found
    counters = torch._dynamo.utils.counters
    assert counters['frames']['ok'] == counters['frames']['total'] == 2  # training and evaluation
    assert not counters['graph_break'] and counters['stats']['unique_graphs'] == 2
    for (name, one), (other_name, other) in zip(eager.state_dict().items(), compiled.state_dict().items(), strict=True):
        assert name == other_name
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    images = torch.randn(1, 3, 40, 40)
    for other in (copy.deepcopy(compiled), fold(compiled)):  # which the compiled code is not of
        with torch.no_grad():
            for p in other.backbone.parameters():
                p.zero_()
        assert not other.backbone(images)[-1].any() and compiled.backbone(images)[-1].any()


def test_what_compile_may_be(tmp_path):
    expected = {True: {}, False: None, None: None, 'reduce-overhead': dict(mode='reduce-overhead')}
    assert all(compile_options(Config(dict(compile=value))) == options for value, options in expected.items())
    assert compile_options(Config(dict(compile=dict(dynamic=True)))) == dict(dynamic=True)
    for value in ('fast', 3):
        with pytest.raises(UserError, match=f"compile={value!r} must be True, False, a mode .*'reduce-overhead'"):
            run.build_runner(config(tmp_path, compile=value))


def test_a_model_without_a_backbone_is_left_to_mmengine(tmp_path):
    cfg = Config.fromstring(CONFIG, '.py')
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), compile='reduce-overhead'))
    runner = run.build_runner(cfg)
    assert '_maybe_compile' not in vars(runner) and runner.cfg.compile == dict(mode='reduce-overhead')


@pytest.mark.parametrize('options', [dict(modee='x'), dict(mode='fast')])
def test_arguments_that_torch_does_not_take(tmp_path, options):
    (key, value), *_ = options.items()
    runner = run.build_runner(config(tmp_path, compile=options))
    with pytest.raises(UserError, match=rf"torch.compile\({key}='{value}'\) of the backbone, .*: .*{key}"):
        runner.train()
