from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub

from nfnet_mm.engine.agc import clip
from nfnet_mm.engine.later import Later
from nfnet_mm.engine.scalars_later import ScalarsLaterHook


def logged(hook, device='cpu'):
    """What a hook leaves in the log of three iterations, and in a checkpoint."""
    hub = MessageHub.get_instance(f'{type(hook).__name__}{id(hook)}')
    runner = SimpleNamespace(message_hub=hub, optim_wrapper=None)
    for i in range(3):
        outputs = dict(loss=torch.tensor(0.1 + i, device=device), acc=torch.tensor([i], device=device), lr=0.5 * i)
        hook.after_train_iter(runner, i, None, outputs)
    checkpoint = dict(message_hub=hub.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    histories = {key: list(scalar.data[0]) for key, scalar in hub.log_scalars.items()}
    return histories, {key: list(scalar.data[0]) for key, scalar in checkpoint['message_hub']['log_scalars'].items()}


@pytest.mark.parametrize('device', [False, True])
def test_the_log_is_that_of_mmengine(device, monkeypatch):
    expected, _ = logged(RuntimeInfoHook())
    monkeypatch.setattr(clip, 'on_device', lambda tensor: device)
    histories, saved = logged(ScalarsLaterHook())
    assert histories == saved == expected
    assert len(expected['train/loss']) == 3


class Delayed:
    """An event that has happened when the test says so."""

    def __init__(self):
        self.happened = self.waited = False

    def query(self):
        return self.happened

    def synchronize(self):
        self.happened = self.waited = True


def test_what_has_not_arrived_is_left_and_comes_in_order():
    later, told, events = Later(), [], [Delayed(), Delayed(), Delayed()]
    for i, event in enumerate(events):
        later._queue.append((torch.tensor([float(i)]), event, told.append))
    events[1].happened = True
    later.read()
    assert told == []  # the second does not pass the first
    events[0].happened = True
    later.read()
    assert told == [[0.0], [1.0]]
    later.read(wait=True)
    assert told == [[0.0], [1.0], [2.0]] and events[2].waited and not events[0].waited


def test_a_use_that_raises_is_not_used_twice():
    later = Later()

    def use(told):
        raise FloatingPointError(told[0])

    with pytest.raises(FloatingPointError):
        later.put(torch.tensor([1.0]), use)
    later.read(wait=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_host_does_not_wait_for_a_gpu():
    hook = ScalarsLaterHook()
    expected, _ = logged(RuntimeInfoHook(), 'cuda')
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    runner = SimpleNamespace(message_hub=MessageHub.get_instance('device'), optim_wrapper=None)
    losses = [torch.tensor(0.1 + i, device='cuda') for i in range(3)]
    torch.cuda.set_sync_debug_mode('error')
    try:
        for i, loss in enumerate(losses):
            hook.after_train_iter(runner, i, None, dict(loss=loss))
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    hook.settle(runner)
    assert list(runner.message_hub.get_scalar('train/loss').data[0]) == expected['train/loss']
