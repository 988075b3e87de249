"""The time of an update on many GPUs: by hand, by simulations of the same, and as the page has it."""

import itertools
import math
import re
import statistics
from pathlib import Path

import pytest

from nfnet_mm.analysis.cost import cost
from nfnet_mm.analysis.scaling import (
    Device,
    Fabric,
    agc_seconds,
    all_reduce_seconds,
    checkpoint_interval,
    compute_seconds,
    exposed_seconds,
    lost_share,
    update,
)
from nfnet_mm.analysis.scaling_page import FABRICS, H100, V100_FLOPS, V100_SECONDS, scaling_files, update_of
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.recipes import IMAGENET, setting

ROOT = Path(__file__).parents[2]
PLAIN = Fabric('', node=100e9, gpu=400e9, utilisation=1, latency=0)


def ring(size, members, speed):
    """Seconds: a part of 1/n goes on to the next member n - 1 times to be summed, and n - 1 times to be handed out."""
    return sum(size / members / speed for _ in range(2 * (members - 1)))


def test_an_all_reduce_is_rings_of_rings():
    for gpus in (1, 2, 8, 16, 64, 1024):
        inside, nodes = min(gpus, 8), max(gpus // 8, 1)
        # between the nodes each of the 8 GPUs sends its eighth by an eighth of the link
        by_hand = ring(80e9, inside, 400e9) + ring(80e9 / 8, nodes, 100e9 / 8)
        assert all_reduce_seconds(80e9, gpus, PLAIN) == pytest.approx(by_hand)
    late = Fabric('', node=100e9, gpu=400e9, utilisation=0.5, latency=1e-3)
    # twice as long at half the speed, and 3 messages there and back over 4 doublings
    assert all_reduce_seconds(80e9, 16, late, 3) == pytest.approx(2 * all_reduce_seconds(80e9, 16, PLAIN) + 0.024)
    with pytest.raises(UserError, match='gpus=12 must be at most 8 or a multiple of it'):
        all_reduce_seconds(1, 12, PLAIN)


def test_what_is_exposed_is_what_a_simulation_has_left():
    for all_reduce, backward, messages in itertools.product((0.1, 1, 3, 10), (0.01, 1, 4, 20), (1, 2, 7, 40)):
        free = 0.0
        for message in range(messages):
            ready = backward * (message + 1) / messages
            free = max(free, ready) + all_reduce / messages
        assert exposed_seconds(all_reduce, backward, messages) == pytest.approx(free - backward)


def test_an_update_by_hand():
    """F0: 6,977,003,520 multiply-adds at 192 px and 71,489,284 parameters; 4096 images on 8 GPUs are 512 each."""
    one = update_of('nfnet_f0', 8)
    assert (one.batch, one.accumulated) == (32, 16)
    assert one.compute == pytest.approx(6 * 6_977_003_520 * 512 / (0.2 * 989e12))
    latency = 2 * 11 * 10e-6 * 3  # 286 MB are 11 buckets of 25 MiB
    assert one.all_reduce == pytest.approx(1.75 * 4 * 71_489_284 / (0.8 * 450e9) + latency)
    assert one.exposed == pytest.approx(one.all_reduce / 11)
    assert one.agc == pytest.approx(16 * 71_489_284 / (0.8 * 3.35e12)) and one.optimizer == pytest.approx(2 * one.agc)
    assert one.seconds == pytest.approx(one.compute + one.exposed + one.agc + one.optimizer)


def test_only_the_last_of_the_accumulated_batches_hides_the_all_reduce():
    device = Device('', flops=6.0, utilisation=1, memory=1e30)
    # 8 images a GPU by 2 at a time, 1 multiply-add each: 2 s for each batch, 4/3 of it backward; 4 P = 40
    slow = Fabric('', node=1, gpu=10.0, gpus_per_node=2, utilisation=1, latency=0)
    one = update(1, 10, 2, 16, 2, device, slow, bucket=20)
    assert (one.compute, one.all_reduce, one.accumulated) == pytest.approx((8, 4, 4))
    assert one.exposed == pytest.approx(4 - 4 / 3 / 2)  # of two messages, the first leaves at half of the pass
    half = update(1, 10, 2, 16, 2, device, slow, gradient_bytes=2, bucket=20)
    assert half.all_reduce == pytest.approx(2) and half.compute == one.compute
    assert update(1, 10, 1, 16, 2, device, slow).exposed == 0
    for gpus, total, most in ((3, 16, 2), (32, 16, 2), (2, 16, 3)):
        with pytest.raises(UserError, match=f'total_batch=16 does not come out even on {gpus} GPUs by {most}'):
            update(1, 10, gpus, total, most, device, PLAIN)


def test_the_utilisation_is_that_of_the_paper_s_times():
    shares = []
    for name, seconds in V100_SECONDS.items():
        network = find_network(name)
        macs = cost(network.family, network.key, setting(network).train_size).macs
        shares.append(compute_seconds(macs, 32, Device('V100', V100_FLOPS, 1, 1)) / seconds)
    assert min(shares) > 0.185 and max(shares) < 0.225
    assert statistics.mean(shares) == pytest.approx(H100.utilisation, rel=0.05)


def test_the_interval_is_where_the_expected_time_is_least():
    """Daly's whole formula (2006, equation 20), searched through."""
    for write, between in ((1, 100), (5, 1e3), (60, 1e4), (0.3, 1e6)):

        def wall(interval, write=write, between=between):
            return between * (math.exp((interval + write) / between) - 1) / interval

        best = min((math.sqrt(2 * write * between) * math.exp(i / 2000) for i in range(-2000, 2000)), key=wall)
        ours = checkpoint_interval(write, between)
        assert ours == pytest.approx(best, rel=0.01)
        assert ours == pytest.approx(math.sqrt(2 * write * between), rel=0.1)  # Young's
        # the share that is lost, by the same formula, where failures are rare
        if between > 1e3:
            assert lost_share(ours, write, between) == pytest.approx(wall(ours) - 1, rel=0.1)
    assert checkpoint_interval(10, 4) == 4
    with pytest.raises(UserError, match='write=0 must be a positive finite number'):
        checkpoint_interval(0, 1)


def test_clipping_is_a_matter_of_memory():
    assert agc_seconds(10**9, Device('', 1, 1, memory=2e12)) == pytest.approx(8e-3)


def test_the_page_is_up_to_date():
    for page, text in scaling_files(ROOT).items():
        assert (ROOT / page).read_text() == text, 'run python tools/write_configs.py'


def test_what_the_page_says_of_its_tables():
    text = (ROOT / 'docs/scaling.md').read_text()
    assert {IMAGENET[name].total_batch for name in ('nfnet_f0', 'nfnet_f6', 'nf_resnet50_agc')} == {4096}
    for name in ('nfnet_f0', 'nfnet_f6', 'nf_resnet50'):
        one = update_of(name, 8)
        assert one.agc < 0.01 * one.seconds and one.exposed < 0.01 * one.seconds  # "One node. Nothing"
    f0, f6 = update_of('nfnet_f0', 256), update_of('nfnet_f6', 1024)
    assert f0.compute < 0.5 * f0.seconds and f6.compute > 0.5 * f6.seconds
    ethernet = update_of('nfnet_f0', 64, FABRICS[2])
    assert ethernet.exposed > 0.5 * ethernet.seconds
    for name, said in (('nfnet_f0', '1.1 GB for F0'), ('nfnet_f6', '7.0 GB\nfor F6')):
        network = find_network(name)
        parameters = cost(network.family, network.key).parameters
        assert said.startswith(f'{16 * parameters / 1e9:.1f} GB') and said in text


def test_the_rates_that_workers_are_counted_for():
    text = (ROOT / 'docs/data.md').read_text()
    rows = re.findall(r'^\| `(\w+)`, (\d+) px \|.*\| (\d+) \| (\d+) for (\d+)', text, re.M)
    assert [name for name, *_ in rows] == ['nfnet_f0', 'nfnet_f3', 'nfnet_f6', 'nf_resnet50']
    for name, pixels, loaded, workers, samples in rows:
        assert int(pixels) == setting(find_network(name)).train_size
        rate = 4096 / 8 / update_of(name, 8).seconds
        assert round(rate) == int(samples)
        assert math.ceil(rate * (2 if name.startswith('nfnet') else 1) / int(loaded)) == int(workers)
    assert f'{32 / V100_SECONDS["nfnet_f0"]:.0f} samples a second' in text
