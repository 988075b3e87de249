"""Training with ``fully_shard`` by two processes against one process that trains the whole model."""

import os
import pickle
import resource
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from torch import distributed, multiprocessing, nn

from nfnet_mm import run
from nfnet_mm.commands import main
from nfnet_mm.converters.formats.read import read_weights
from nfnet_mm.engine.checkpoint_file import damage
from nfnet_mm.engine.fully_shard import kept_whole, units_of
from nfnet_mm.engine.sharded_checkpoint import put_back, restore_replaced, take_tensors
from nfnet_mm.errors import UserError
from nfnet_mm.run.latest import newest_checkpoint
from tests.engine.sharded_toy import CONFIG, SHARDED, ToyNet

fsdp = pytest.importorskip('torch.distributed.fsdp', exc_type=ImportError)
if not hasattr(fsdp, 'fully_shard'):
    pytest.skip('this PyTorch has no fully_shard', allow_module_level=True)

BF16 = CONFIG.replace("type='nfnet_mm.AGCOptimWrapper'", "type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16'")
FULL = "custom_imports['imports'].append('tests.engine.test_fully_shard')\n"
FULL += "custom_hooks = [*custom_hooks, dict(type='FullDiskOfOne')]\n"
ONE_UNIT = SHARDED.replace('min_params=2000', "units=['backbone', 'fc']")
HALF = SHARDED.replace('min_params', "param_dtype='bfloat16', min_params")


def train(folder, name, config, resume=None):
    rank = os.environ.get('RANK', '0')
    path = folder / f'{name}_{rank}.py'
    path.write_text(config)
    cfg = run.load_config(str(path), dict(experiment_name=f'{folder}{name}'), str(folder / name))
    cfg.launcher = 'pytorch' if distributed.is_initialized() else 'none'
    run.use_resume(cfg, resume and str(resume))
    runner = run.build_runner(cfg)
    run.require_whole(runner)
    runner.train()
    return runner


def work(rank, world, folder, jobs):
    """The jobs of one of the processes, one after the other; what they raise is kept."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    run.use_safe_loading()
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    for name, *rest in jobs:
        try:
            train(folder, name, *rest)
        except (UserError, RuntimeError) as error:
            (folder / f'{name}.{rank}.error').write_text(str(error))
    distributed.destroy_process_group()
    (folder / 'meet').unlink(missing_ok=True)


def together(folder, *jobs, world=2):
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['torchvision', 'mmengine.visualization', 'tests.engine.test_fully_shard'])
    args = (world, folder, jobs)
    multiprocessing.start_processes(work, args, world, start_method='forkserver')


def read(path):
    return run.read_checkpoint(path)


def flat(end, key='state_dict'):
    return torch.cat([value.double().flatten() for value in end[key].values()])


def near(end, other, rtol=1e-6):
    assert list(end['state_dict']) == list(other['state_dict'])
    for key in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(flat(end, key), flat(other, key), rtol=rtol, atol=rtol / 10)


def same(one, other):
    assert one['param_schedulers'] == other['param_schedulers']
    for key in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)
    torch.testing.assert_close(one['optimizer']['state'], other['optimizer']['state'], rtol=0, atol=0)


def ends(folder, *names):
    return [read(folder / name / 'iter_10.pth') for name in names]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """10 steps, with AGC, an average, and two accumulated batches of two on each of two processes."""
    folder, scope = tmp_path_factory.mktemp('sharded'), DefaultScope._instance_dict.copy()
    train(folder, 'one', CONFIG)
    # gone on from its own folder, and from a file of the whole model
    jobs = [
        ('two', CONFIG + SHARDED),
        *(('from_' + name, CONFIG + SHARDED, half(folder, name)) for name in ('two', 'one')),
    ]
    together(folder, *jobs)
    DefaultScope._instance_dict = scope
    return folder


def half(folder, name):
    return folder / name / 'iter_5.pth'


def test_two_processes_train_as_one(trained):
    one, two = ends(trained, 'one', 'two')
    assert list(one) == list(two) and (trained / 'two/iter_10.pth').is_dir()
    near(two, one)
    for state, other in zip(two['optimizer']['state'].values(), one['optimizer']['state'].values()):
        torch.testing.assert_close(state, other, rtol=1e-5, atol=1e-6)
    groups = [[{**group, 'fused': None} for group in end['optimizer']['param_groups']] for end in (two, one)]
    assert groups[0] == groups[1]  # but that DTensors are not stepped by a fused optimizer
    assert two['state_dict']._metadata.keys() == one['state_dict']._metadata.keys()
    for what in ('val/error', 'train/agc/clipped_fraction'):  # the first computed with the average, in shards
        told = [end['message_hub']['log_scalars'][what].current() for end in (two, one)]
        assert told[0] == pytest.approx(told[1], rel=1e-5) and told[0] > 0.01
    assert (flat(read(half(trained, 'one'))) - flat(one)).norm() > 0.01  # it was trained


def test_a_sharded_run_goes_on_bit_for_bit(trained):
    same(*ends(trained, 'from_two', 'two'))


def test_a_sharded_run_and_one_process_go_on_from_each_other_s_checkpoints(trained):
    run.use_safe_loading()
    train(trained, 'one_from_two', CONFIG, half(trained, 'two'))
    for end in ends(trained, 'from_one', 'one_from_two'):
        near(end, read(trained / 'one/iter_10.pth'))


def test_what_reads_weights_reads_such_a_folder(trained):
    folder = trained / 'two/iter_10.pth'
    found = read_weights(folder).state_dict
    want = read(folder)['state_dict']
    assert list(found) == list(want) and all(torch.equal(found[name], want[name]) for name in want)


def test_a_folder_of_any_model_becomes_one_file(trained, tmp_path, capsys):
    folder, target = str(trained / 'two/iter_10.pth'), tmp_path / 'model.pth'
    main('convert', [folder, str(target)])
    want = read(folder)['state_dict']
    assert f'{len(want)} tensors, written by the names that they have' in capsys.readouterr().out
    found = torch.load(target, weights_only=True)['state_dict']
    assert list(found) == list(want) and all(torch.equal(found[name], want[name]) for name in want)
    with pytest.raises(SystemExit):
        main('convert', [folder, str(target)])
    assert 'exists' in capsys.readouterr().err


def test_a_changed_or_missing_part_is_seen_and_the_one_before_taken(trained, tmp_path):
    shutil.copytree(trained / 'two', tmp_path / 'two')
    (tmp_path / 'two/last_checkpoint').write_text(str(tmp_path / 'two/iter_10.pth'))
    last = tmp_path / 'two/iter_10.pth'
    assert newest_checkpoint(str(tmp_path / 'two')) == (str(last), [])
    for part in sorted(last.iterdir()):
        whole = part.read_bytes()
        for content in (whole[: len(whole) // 2], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], None):
            part.unlink() if content is None else part.write_bytes(content)
            path, passed = newest_checkpoint(str(tmp_path / 'two'))
            assert path == str(tmp_path / 'two/iter_5.pth') and part.name in passed[0] + 'seal.json', (part, passed)
            part.write_bytes(whole)
    assert damage(last) is None
    # killed while one of the same name was about to be replaced
    os.rename(last, tmp_path / 'two/.iter_10.pth.abc.tmp.old.tmp')
    assert newest_checkpoint(str(tmp_path / 'two')) == (str(last), [])
    (tmp_path / 'two/.iter_10.pth.abd.tmp.old.tmp').mkdir()
    restore_replaced(tmp_path / 'two')
    assert damage(last) is None


def test_an_index_that_would_run_code_is_refused(trained, tmp_path, canary):
    class Hostile:
        def __reduce__(self):
            return os.system, (f'touch {canary}',)

    folder = tmp_path / 'iter_10.pth'
    shutil.copytree(trained / 'two/iter_10.pth', folder)
    (folder / '.metadata').write_bytes(pickle.dumps(Hostile()))
    (folder / 'seal.json').write_text('{}')  # which whoever made it can
    for read_it in (read, read_weights):
        with pytest.raises(UserError, match=r'cannot be read: .*asks for (posix|os)\.system, which could run code'):
            read_it(folder)


def test_tensors_are_taken_out_and_put_back():
    state = {0: dict(momentum_buffer=torch.ones(2), step=3), 1: {}}
    whole = dict(
        meta=dict(a=torch.zeros(1)), state_dict=nn.Linear(2, 1).state_dict(), optimizer=dict(state=state, n=[1])
    )
    rest, tensors = take_tensors(whole)
    assert sorted(tensors) == ['optimizer/state/0/momentum_buffer', 'state_dict/bias', 'state_dict/weight']
    again = put_back(rest, tensors)
    torch.testing.assert_close(again, whole)
    assert (
        list(again['state_dict']) == ['weight', 'bias']
        and again['state_dict']._metadata == whole['state_dict']._metadata
    )


def test_shared_parameters_are_in_no_unit():
    net = nn.ModuleDict(dict(a=nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), b=nn.Linear(4, 4)))
    net['b'].weight = net['a'][1].weight
    assert list(units_of(net, 20)) == [net['a'][0]]
    assert [tuple(p.shape) for p in kept_whole(ToyNet()) if p.dim()] == [(32, 6, 2, 2)]


@HOOKS.register_module(force=True)
class FullDiskOfOne(Hook):
    """The second of the processes cannot write until the sixth step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if os.environ['RANK'] == '1' and batch_idx in (0, 6):
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500 if batch_idx == 0 else most, most))


REFUSED = dict(
    sam="custom_hooks = [dict(type='nfnet_mm.SAMHook')]\n",
    clip="optim_wrapper['clip_grad'] = dict(max_norm=1.0)\n",
    loss="model_wrapper_cfg['param_dtype'] = 'bfloat16'\n",
    units="model_wrapper_cfg['units'] = ['backbone.stage.*']\n",
    dtype="model_wrapper_cfg['param_dtype'] = 'float8'\n",
)
SAID = dict(
    sam='SAMHook does not work under FullyShard',
    clip="does not go with clip_grad={'max_norm': 1.0}: clip by AGC alone",
    loss="leaves losses in bfloat16 under AGCOptimWrapper: take type='nfnet_mm.AmpAGCOptimWrapper'",
    units="units='backbone.stage.*' matches no module; those at the top: backbone, data_preprocessor, fc, up",
    dtype="param_dtype='float8' must be one of 'float32', 'bfloat16'",
)


@pytest.mark.slow
def test_on_three_processes_in_bfloat16_and_what_is_refused(trained, tmp_path):
    """12 samples on 3 processes; the whole model as one unit; an average of bfloat16 weights' gradients in float32."""
    config = CONFIG.replace('total_batch=8, lr_batch=8', 'total_batch=12')
    amp = BF16.replace('total_batch=8, lr_batch=8', 'total_batch=12')
    for name, one in (('one', config), ('one_amp', amp)):
        train(tmp_path, name, one)
    jobs = [('three', config + SHARDED), ('unit', config + ONE_UNIT), ('amp', amp + SHARDED), ('half', amp + HALF)]
    together(
        tmp_path,
        *jobs,
        ('again', config + SHARDED, tmp_path / 'one/iter_5.pth'),
        ('full', config + SHARDED + FULL),
        *((name, config + SHARDED + line) for name, line in REFUSED.items()),
        world=3,
    )
    one, amp_one, *others = ends(tmp_path, 'one', 'one_amp', 'three', 'unit', 'again')
    for end in others:
        near(end, one)
    for end in ends(tmp_path, 'amp', 'half'):
        off = (flat(end) - flat(amp_one)).norm() / (flat(amp_one) - flat(read(tmp_path / 'one_amp/iter_5.pth'))).norm()
        assert 0 < off < 0.05, off
    # one that could not write its part: no checkpoint, on all of them, and training goes on
    assert sorted(path.name for path in (tmp_path / 'full').glob('*iter*')) == ['iter_10.pth']
    same(*ends(tmp_path, 'full', 'three'))
    for name, said in SAID.items():
        assert [said in (tmp_path / f'{name}.{rank}.error').read_text() for rank in range(3)] == [True] * 3
