"""Types and arguments of this package that are misspelt get the nearest name, wherever they are built."""

import inspect

import pytest
from mmengine import Config
from mmengine.registry import HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS, WEIGHT_INITIALIZERS, init_default_scope

from nfnet_mm import registry
from nfnet_mm.errors import UserError
from nfnet_mm.run import build_runner
from nfnet_mm.run.type_names import check_types
from tests import toy


@pytest.mark.parametrize(
    'built_by,cfg,message',
    [
        (MODELS, dict(type='nfnet_mm.NfNet'), "there is no model 'NfNet' in nfnet_mm. Did you mean 'NFNet'?"),
        (MODELS, dict(type='nfnet_mm.NFResnet'), "no model 'NFResnet' in nfnet_mm. Did you mean 'NFResNet'?"),
        (MODELS, dict(type='nfnet_mm.NFClassHead'), "Did you mean 'NFClsHead'?"),  # of a task, not imported yet
        (MODELS, dict(type='nfnet_mm.Swin'), "there is no model 'Swin' in nfnet_mm. Known: "),
        (OPTIM_WRAPPERS, dict(type='nfnet_mm.AGCOptimizerWrapper'), "Did you mean 'AGCOptimWrapper'?"),
        (HOOKS, dict(type='nfnet_mm.SamHok'), "there is no hook 'SamHok' in nfnet_mm. Did you mean 'SAMHook'?"),
        (
            MODELS,
            dict(type='nfnet_mm.NFNet', arch='nano', frozen_stage=1),
            "NFNet takes no frozen_stage=1. Did you mean 'frozen_stages'? It takes: arch, in_channels, out_indices, "
            'frozen_stages, strides, dilations, with_cp, act, alpha, drop_path_rate, init_cfg',
        ),
        (MODELS, dict(type='nfnet_mm.BNResNet', dept=50), "BNResNet takes no dept=50. Did you mean 'depth'?"),
        (OPTIM_WRAPPERS, dict(type='nfnet_mm.AGCOptimWrapper', acg={}), "takes no acg={}. Did you mean 'agc'?"),
        (
            OPTIM_WRAPPERS,
            dict(type='nfnet_mm.AmpAGCOptimWrapper', accumulative_count=2),  # of mmengine's own wrapper
            "takes no accumulative_count=2. Did you mean 'accumulative_counts'?",
        ),
        (HOOKS, dict(type='nfnet_mm.SAMHook', rh=1), "SAMHook takes no rh=1. Did you mean 'rho'? It takes: rho, "),
        (LOOPS, dict(type='nfnet_mm.TotalBatchTrainLoop', max_iter=3), "no max_iter=3. Did you mean 'max_iters'?"),
        (WEIGHT_INITIALIZERS, dict(type='nfnet_mm.NFPretrained', checkpiont='x'), "Did you mean 'checkpoint'?"),
    ],
)
@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
def test_what_is_built_names_the_nearest(built_by, cfg, message, scope):
    init_default_scope(scope)
    with pytest.raises(UserError) as error:
        built_by.build(cfg)
    assert message in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'scope,change,message',
    [
        (
            'mmdet',
            dict(optim_wrapper=dict(type='AGCOptimWrapper')),
            "optim_wrapper.type='AGCOptimWrapper': there is no such type in the scope 'mmdet'. "
            "Did you mean 'nfnet_mm.AGCOptimWrapper'?",
        ),
        (
            'mmengine',
            dict(optim_wrapper=dict(type='nfnet_mm.AGCOptimizerWrapper')),
            "optim_wrapper.type='nfnet_mm.AGCOptimizerWrapper': there is no such type. "
            "Did you mean 'nfnet_mm.AGCOptimWrapper'?",
        ),
        (
            'mmengine',
            dict(optim_wrapper=dict(constructor='NFOptimWrapperConstructor')),
            "optim_wrapper.constructor='NFOptimWrapperConstructor': there is no such type in the scope 'mmengine'. Did",
        ),
        (
            'mmengine',
            dict(model=dict(parts=[dict(backbone=dict(type='mmdet.NFNet'))])),
            "model.parts.0.backbone.type='mmdet.NFNet': there is no such type. Did you mean 'nfnet_mm.NFNet'?",
        ),
        ('mmengine', dict(custom_hooks=[dict(type='nfnet_mm.Early')]), "custom_hooks.0.type='nfnet_mm.Early': there"),
    ],
)
def test_what_a_config_names_is_found_by_its_key(scope, change, message):
    if scope == 'mmdet':
        pytest.importorskip('mmdet')
    cfg = Config.fromstring(toy.CONFIG, '.py')
    cfg.merge_from_dict(dict(change, default_scope=scope))
    with pytest.raises(UserError) as error:
        build_runner(cfg)
    assert str(error.value).startswith(message)


def test_types_of_others_are_left_to_their_registries():
    pytest.importorskip('mmdet')
    near = [dict(type='ResNet'), dict(type='mmdet.ResNet'), dict(type='OptimWrapper'), dict(type='nfnet_mm.NFNet')]
    far = [dict(type='Resnnet'), dict(type='nowhere.Something'), dict(type='nfnet_mm.models.NFNet'), dict(type=dict)]
    check_types(Config(dict(default_scope='mmdet', near=near, far=far)))


def test_another_package_s_error_keeps_its_traceback():
    with pytest.raises(KeyError):
        MODELS.build(dict(type='NoSuchModel'))
    with pytest.raises(TypeError):
        OPTIM_WRAPPERS.build(dict(type='OptimWrapper', optimiser=None))


def test_a_subclass_may_take_more():
    from nfnet_mm.models import NFNet

    class Mine(NFNet):
        def __init__(self, extra, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

    assert Mine(extra=1, arch='nano', frozen_stages=1).extra == 1
    with pytest.raises(UserError, match='NFNet takes no frozen=1'):
        Mine(extra=1, arch='nano', frozen=1)


def test_every_class_tells_what_it_takes():
    for own in vars(registry).values():
        if isinstance(own, registry.Registry):
            own.import_from_location()
            for kind in own.module_dict.values():
                takes = isinstance(kind, type) and list(inspect.signature(kind.__init__).parameters)[1:]
                # a hook of mmengine's takes **kwargs to its end
                assert not takes or 'kwargs' in takes or registry._arguments(kind, kind), kind
