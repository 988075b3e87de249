"""What a run does about GPUs, on machines that are made up."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine import Config
from mmengine.model import BaseDataPreprocessor

from nfnet_mm import doctor
from nfnet_mm.run import device, say_unused_gpu


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Two GPUs that nvidia-smi shows and torch does not."""
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\necho 470.82.01\necho 470.82.01\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(device, 'get_device', lambda: 'cpu')
    return monkeypatch


def test_a_gpu_that_torch_cannot_use_is_told_in_one_line(gpus, capsys):
    say_unused_gpu()
    said = capsys.readouterr().out
    assert said.startswith('2 NVIDIA GPUs here, and torch cannot use them (torch ') and said.count('\n') == 1
    assert 'the driver is 470.82.01): this runs on the CPU; `python -m nfnet_mm doctor` says the fix' in said


@pytest.mark.parametrize('hidden', ['', '-1'])
def test_gpus_that_are_hidden_on_purpose_or_used_are_not_told_of(gpus, capsys, hidden):
    gpus.setenv('CUDA_VISIBLE_DEVICES', hidden)
    say_unused_gpu()
    gpus.delenv('CUDA_VISIBLE_DEVICES')
    gpus.setattr(device, 'get_device', lambda: 'cuda')
    say_unused_gpu()
    assert capsys.readouterr().out == ''


def test_gpus_are_counted_without_their_tool_too(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    loaded = tmp_path / 'version'
    assert doctor.gpus_and_driver(tmp_path, loaded) == (0, '')
    for name in ('nvidia0', 'nvidia1', 'nvidiactl', 'nvidia-uvm'):
        (tmp_path / name).touch()
    assert doctor.gpus_and_driver(tmp_path, loaded) == (2, '')
    loaded.write_text('NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n')
    assert doctor.gpus_and_driver(tmp_path, loaded) == (2, '535.129.03')


def test_batches_are_pinned_on_cuda_unless_the_config_says_otherwise(monkeypatch):
    cfg = Config(dict(train_dataloader=dict(batch_size=1), val_dataloader=dict(pin_memory=False), test_dataloader=None))
    monkeypatch.setattr(device, 'get_device', lambda: 'cpu')
    device.use_cuda_well(cfg)
    assert 'pin_memory' not in cfg.train_dataloader
    monkeypatch.setattr(device, 'get_device', lambda: 'cuda')
    device.use_cuda_well(cfg)
    assert cfg.train_dataloader.pin_memory is True and cfg.val_dataloader.pin_memory is False
    model = SimpleNamespace(data_preprocessor=BaseDataPreprocessor())
    device.copy_without_waiting(SimpleNamespace(model=SimpleNamespace(module=model)))
    assert model.data_preprocessor._non_blocking is True


@pytest.mark.parametrize('tf32', [True, False])
def test_tf32_is_as_the_config_says(tf32):
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = not tf32
        device.use_cuda_well(Config(dict(env_cfg=dict())))
        assert [backend.allow_tf32 for backend in backends] == [not tf32] * 2
        device.use_cuda_well(Config(dict(env_cfg=dict(tf32=tf32))))
        assert [backend.allow_tf32 for backend in backends] == [tf32] * 2
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value
