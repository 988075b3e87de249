"""The recipe for one's own data: converted weights are worth having."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def accuracy(run_tool, folder, data, classes, weights, epochs):
    """Top-1 on the validation images, in percent, after the recipe."""
    name = f'{data.name}_{"weights" if weights else "random"}'
    config = folder / f'{name}.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/finetune_nfnet_f0.py'\ndata_root = '{data}'\nnum_classes = {classes}\n"
        f'weights = {weights!r}\n'
        "model = dict(backbone=dict(arch='nano'), head=dict(in_channels=256))\n"
        'train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline\n'
        'train_pipeline[1].update(scale=48, crop_ratio_range=(0.6, 1.0))\n'
        'train_pipeline.pop(2)\n'  # a mirrored digit is another sign
        "test_pipeline[1] = dict(type='Resize', scale=(48, 48))\n"
        'own = dict(num_workers=0, persistent_workers=False)\n'
        'train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **own)\n'
        'val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **own)\n'
        f'train_cfg = dict(max_epochs={epochs}, val_interval={epochs})\n'
        # from random weights the larger rate of the demo is the fair one
        + ('' if weights else "optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=3e-3))\n")
        + ('' if weights else 'train_cfg.update(lr_batch=64)\n')
    )
    code, errors = run_tool('train', config, '--work-dir', folder / name)
    assert code == 0, errors[-2000:]
    scalars = next((folder / name).rglob('scalars.json')).read_text().splitlines()
    return [row['accuracy/top1'] for row in map(json.loads, scalars) if 'accuracy/top1' in row][-1]


@pytest.mark.slow
def test_converted_weights_learn_a_small_data_set_better_than_random_ones(run_tool, tmp_path):
    """Five digits with 20 images each, from a network that has learnt the other five."""
    pytest.importorskip('mmpretrain')
    from demo.digits import DigitsSpec, generate
    from nfnet_mm.converters.convert import convert_file

    size = dict(image_size=48, min_digit=24, max_digit=48, max_digits=1, layout='class_folders')
    many = generate(tmp_path / 'many', DigitsSpec(train=1600, val=100, **size))
    few = generate(tmp_path / 'few', DigitsSpec(train=200, val=400, seed=1, **size))
    for root, others in ((many, range(5, 10)), (few, range(5))):
        for path in (root / split / str(digit) for split in ('train', 'val') for digit in others):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    accuracy(run_tool, tmp_path, many, 5, None, epochs=12)
    checkpoint = (tmp_path / 'many_random/last_checkpoint').read_text()
    convert_file(checkpoint, tmp_path / 'nano.pth')
    weights = accuracy(run_tool, tmp_path, few, 5, str(tmp_path / 'nano.pth'), epochs=30)
    random = accuracy(run_tool, tmp_path, few, 5, None, epochs=30)
    print(f'top-1 from weights {weights:.1f}, from random {random:.1f}')
    assert weights > random + 10  # chance is 20
