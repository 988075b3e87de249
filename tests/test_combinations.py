"""Settings that do not go together are told in one line before anything is built."""

import pytest
from mmengine import Config

from nfnet_mm.errors import UserError
from nfnet_mm.run import build_runner
from nfnet_mm.run.combinations import check_combinations

AGC = dict(type='nfnet_mm.AGCOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
AVERAGE = dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')
FSDP = dict(type='MMFullyShardedDataParallel')


@pytest.mark.parametrize(
    'cfg,message',
    [
        (
            dict(optim_wrapper=dict(AGC, accumulative_counts=4), custom_hooks=[AVERAGE]),
            'EMAHook interval=1 averages between the updates.*accumulative_counts=4 batches: set interval=4',
        ),
        (
            dict(optim_wrapper=dict(AGC, accumulative_counts=4), custom_hooks=[dict(AVERAGE, interval=6)]),
            'EMAHook interval=6 .*set interval=4',
        ),
        (dict(optim_wrapper=AGC, model_wrapper_cfg=FSDP), "model_wrapper_cfg.type='MMFullyShard.*AGC needs whole ones"),
        (
            dict(optim_wrapper=dict(type='nfnet_mm.AmpAGCOptimWrapper'), strategy=dict(type='DeepSpeedStrategy')),
            "strategy.type='DeepSpeedStrategy' .* AGC needs whole ones: leave it out",
        ),
        (
            dict(custom_hooks=[dict(type='nfnet_mm.SAMHook')], strategy=dict(type='mmengine.FSDPStrategy')),
            "strategy.type='FSDPStrategy' .* SAM needs whole ones",
        ),
    ],
)
def test_refused(cfg, message):
    with pytest.raises(UserError, match=message):
        build_runner(Config(cfg))


def test_a_count_beside_the_total_batch_is_left_to_the_loop_that_refuses_it():
    """Not answered by the interval that an average would need with it."""
    loop = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=8, lr_batch=8, max_iters=1)
    cfg = dict(train_cfg=loop, optim_wrapper=dict(AGC, accumulative_counts=4), custom_hooks=[AVERAGE])
    check_combinations(Config(cfg))


def test_a_work_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r"work_dir '.*file/run' cannot be made: Not a directory"):
        build_runner(Config(dict(work_dir=str(tmp_path / 'file/run'))))
