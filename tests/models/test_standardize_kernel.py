"""The Triton kernels of weight standardisation against torch's operations in float64.

Where there is no GPU, they run in Triton's interpreter: in a process of its own, as that changes Triton.
"""

import os
import subprocess
import sys

import pytest
import torch

from nfnet_mm.models.layers import WSConv2d
from nfnet_mm.models.layers import standardize_kernel as kernel

DEVICE = 'cpu' if kernel.INTERPRETED or not torch.cuda.is_available() else 'cuda'
here = pytest.mark.skipif(DEVICE == 'cpu' and not kernel.INTERPRETED, reason='runs in a process of its own')


@pytest.mark.skipif(DEVICE == 'cuda' or kernel.INTERPRETED, reason='the kernels are tested here themselves')
def test_in_the_interpreter():
    pytest.importorskip('triton', minversion='3.0')  # whose interpreter runs on a CPU
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', __file__]
    env = dict(os.environ, TRITON_INTERPRET='1', CUDA_VISIBLE_DEVICES='')
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
    assert '13 passed' in run.stdout


def conv_and_input(dialect, inputs, groups, dtype):
    torch.manual_seed(0)
    conv = WSConv2d(inputs, 4, 3, 2, groups=groups, input_scale=1.7, dialect=dialect)
    with torch.no_grad():
        conv.gain.uniform_(0.5, 2)
        conv.weight[1].mul_(1e-4)  # under the authors' floor
        conv.weight[2].zero_()
    conv = conv.to(DEVICE, dtype)
    return conv, torch.randn(2, inputs, 5, 4, device=DEVICE).to(dtype).requires_grad_()


@here
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('inputs,groups', [(4, 2), (500, 1)])  # the latter's rows are longer than a block
@pytest.mark.parametrize('dialect', ['authors', 'timm'])
def test_against_torchs_operations(dialect, inputs, groups, dtype):
    conv, x = conv_and_input(dialect, inputs, groups, dtype)
    assert kernel.works_for(conv.weight, conv.gain)
    out = conv(x)
    ours = out, *torch.autograd.grad(out.float().square().sum(), (x, *conv.parameters()))
    wide, x64 = WSConv2d(inputs, 4, 3, 2, groups=groups, input_scale=1.7, dialect=dialect), x.detach().double()
    wide.load_state_dict(conv.state_dict())
    wide, x64 = wide.to(DEVICE).double(), x64.requires_grad_()
    out = wide._plain(x64, wide.weight, wide.gain, wide.bias)
    expected = out, *torch.autograd.grad(out.square().sum(), (x64, *wide.parameters()))
    bound = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    for value, other in zip(ours, expected):
        assert value.dtype == dtype
        assert (value.double() - other).norm() <= bound * other.norm()


@here
def test_under_autocast_bias_and_its_gradient_are_cast_as_torch_does():
    conv, x = conv_and_input('authors', 4, 2, torch.float32)
    assert kernel.works_for(conv.weight, conv.gain, conv.bias)
    with torch.no_grad():
        conv.bias.uniform_(0.1, 3)
    conv.weight.requires_grad_(False)  # the gain's gradient alone needs the kernel
    with torch.autocast(DEVICE, torch.bfloat16):
        out = conv(x)
    grads = torch.autograd.grad(out.float().sum(), (conv.gain, conv.bias))
    assert [g.dtype for g in grads] == [torch.float32] * 2 and out.dtype == torch.bfloat16
    # at 2 x 3 x 2 outputs a channel, each with the gradient 1
    torch.testing.assert_close(grads[1], torch.full((4,), 12.0, device=DEVICE))
    weight = conv.standardized_weight().bfloat16()
    expected = torch.nn.functional.conv2d(
        *(conv.padded(x.bfloat16())[0], weight, conv.bias.bfloat16(), conv.stride, 0, conv.dilation, conv.groups)
    )
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)
