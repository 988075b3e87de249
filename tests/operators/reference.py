"""What mmcv computes: its compiled module, and its CUDA kernels compiled for the CPU where it has no CPU code."""

import ctypes
import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from nfnet_mm.operators.precision import single


def compiled():
    """The compiled ``mmcv._ext``; without one, skips."""
    module = importlib.import_module('mmcv._ext')
    if not getattr(module, '__file__', None):
        pytest.skip('mmcv has no compiled operators here: `make ops` compiles them')
    return module


class Kernels:
    """The kernels of mmcv's sources behind the interface of ``mmcv._ext``, for contiguous tensors of one type."""

    def __init__(self, folder):
        import mmcv

        sources = Path(mmcv.__file__).parent / 'ops/csrc/common/cuda'
        compiler = shutil.which(os.environ.get('CXX', 'g++'))
        if not sources.is_dir() or not compiler:
            pytest.skip("needs a C++ compiler and mmcv's sources")
        (folder / 'pytorch_cuda_helper.hpp').touch()
        library = folder / 'kernels.so'
        command = [compiler, '-std=c++17', '-O1', '-shared', '-fPIC', f'-I{folder}', f'-I{sources}', '-o', library]
        subprocess.run([*command, Path(__file__).with_name('kernels.cpp')], check=True)
        self.library = ctypes.CDLL(str(library))

    def call(self, name, count, *arguments):
        """Call a kernel: tensors by their addresses (None if empty), floats in the tensors' precision, integers."""
        dtype = arguments[0].dtype
        real = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}[dtype]
        as_c = {float: real, int: ctypes.c_int}
        passed = [
            as_c[type(a)](a) if type(a) in as_c else ctypes.c_void_p(a.data_ptr() if a.numel() else None)
            for a in arguments
        ]
        kind = 'float' if dtype == torch.float32 else 'double'
        getattr(self.library, f'{name}_{kind}')(ctypes.c_int(count), *passed)

    def roi_pool_forward(self, input, rois, output, argmax, pooled_height, pooled_width, spatial_scale):
        size = (pooled_height, pooled_width, single(spatial_scale), *input.shape[1:])
        self.call('roi_pool_forward', output.numel(), input, rois, output, argmax, *size)

    def roi_pool_backward(self, grad_output, rois, argmax, grad_input, pooled_height, pooled_width, spatial_scale):
        size = (pooled_height, pooled_width, *grad_input.shape[1:])
        self.call('roi_pool_backward', grad_output.numel(), grad_output, rois, argmax, grad_input, *size)

    def __getattr__(self, name):
        def focal(input, target, weight, *written, gamma, alpha):
            count = len(input) if name.startswith('softmax') else input.numel()
            self.call(name, count, input, target, weight, *written, single(gamma), single(alpha), input.shape[1])

        if 'focal_loss' not in name:
            raise AttributeError(name)
        return focal
