"""Swap the backbone of every ResNet-50 config that the frameworks ship, one per distinct model, and train one step.

For each: does it build as shipped; and with the backbone swapped, does it convert and build, is the loss of one step on
two small made-up pictures finite, do gradients reach the backbone, are the features of the size the ResNet's were. A
step that fails is tried as shipped too, to tell what is missing on this machine (an operator of mmcv's) from
what the swap broke. Pretrained weights are never loaded. Results go to a file of JSON lines, which is continued.
"""

import argparse
import copy
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine import ConfigDict, MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm import operators
from nfnet_mm.engine.bfloat16 import keep_boxes_in_float32
from nfnet_mm.errors import UserError, short
from nfnet_mm.models.backbones.base import NFBackbone
from nfnet_mm.models.backbones.stage import NFStage
from nfnet_mm.named_configs import find_config
from nfnet_mm.swap import config_files, swap
from nfnet_mm.swap.tree import walk

operators.install()
LAYOUT = ('out_indices', 'strides', 'dilations', 'num_stages', 'plugins', 'dcn', 'stage_with_dcn', 'multi_grid')
SKIPPED = ('train_cfg', 'test_cfg', 'data_preprocessor', 'init_cfg', 'norm_cfg', 'act_cfg', 'pretrained')
# Pixels of the pictures: the fewest that most models take, and what those that find too few positions need.
SIZES = 96, 288


def layout(model):
    """What makes a model another model: the types of its modules (not of losses), the layout of its backbone."""
    modules = walk(model, enter=lambda item: item.key not in SKIPPED and not str(item.key).startswith('loss'))
    telling = [i for i in modules if i.key == 'type' or (i.where.endswith('backbone') and i.key in LAYOUT)]
    return repr(sorted((item.path, json.dumps(item.value, sort_keys=True, default=str)) for item in telling))


def shipped(framework):
    """{layout: [names]} of the ResNet-50 configs a framework ships, and the names of those that do not load."""
    root = Path(find_spec(framework).submodule_search_locations[0], '.mim', 'configs')
    models, broken = {}, []
    for path in sorted(root.rglob('*.py')):
        name = path.relative_to(root).as_posix()
        if '_base_' in name or '50' not in path.stem:
            continue
        try:
            cfg = config_files.read_config(path)
        except UserError:
            broken.append(name)
            continue
        found = [host.value for host in swap.backbone_hosts(cfg.get('model'), 'model')]
        if any(swap.is_resnet(backbone) and backbone.get('depth') == 50 for backbone in found):
            models.setdefault(layout(cfg['model']), []).append(name)
    return models, broken


def register(framework):
    """Import what a framework's configs name."""
    import_module(f'{framework}.utils').register_all_modules(init_default_scope=False)
    if framework == 'mmseg':  # some of its models are mmdet's
        import_module('mmdet.utils').register_all_modules(init_default_scope=False)


def pictures(count, height, width):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def made_up_batch(cfg, size):
    """Two random pictures with made-up answers, as the framework's own tests have them."""
    kind, options = cfg['model']['type'], walk(cfg['model'])
    counts = [item.value for item in options if 'num_classes' in (item.key, item.where.rpartition('.')[2])]
    classes = min((count for count in counts if isinstance(count, int)), default=2)  # a class that every head has
    if cfg['default_scope'] == 'mmseg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        masks = torch.randint(0, min(classes, 4), (2, 1, size, size))
        known = dict.fromkeys(('img_shape', 'ori_shape'), (size, size))
        samples = [SegDataSample(gt_sem_seg=PixelData(data=mask), metainfo=known) for mask in masks]
        return dict(inputs=list(pictures(2, size, size)), data_samples=samples)
    if cfg['default_scope'] == 'mmpretrain':
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(i % classes) for i in range(2)]
        views = [pictures(2, size, size) for _ in range(2)]
        if 'Classifier' in kind or 'data_preprocessor' not in cfg:
            return dict(inputs=views[0], data_samples=samples)
        if kind == 'SwAV':  # two large views and as many small ones as its loss counts
            crops = cfg['model']['head']['loss']['num_crops']
            views = [view for view, count in zip(views, crops) for _ in range(count)]
        return dict(inputs=views, data_samples=samples)  # self-supervised: views of the same pictures
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs

    if kind == 'BaseReID':
        from mmdet.structures import ReIDDataSample

        sample = ReIDDataSample()  # two pictures of each of two identities, of the one size its pooling takes
        sample.set_gt_label([0, 0, 1, 1])
        return dict(inputs=[pictures(4, 256, 128)], data_samples=[sample])
    shapes = [(3, size, size)] * 2
    if 'Track' in str(cfg['model'].get('data_preprocessor', {}).get('type')):
        size_and_classes = dict(image_shapes=shapes[:1], num_classes=max(1, min(classes, 2)))
        return demo_track_inputs(batch_size=1, num_frames=2, key_frames_inds=[0], with_mask=True, **size_and_classes)
    batch = demo_mm_inputs(2, shapes, num_items=[3, 3], num_classes=2, with_mask=True, with_semantic=True)
    for sample in batch['data_samples']:
        # boxes of some size, and masks that fill them: an empty one stands for no object
        boxes = torch.tensor([[8.0, 8.0, 56.0, 52.0], [30.0, 20.0, 90.0, 85.0], [50.0, 5.0, 92.0, 40.0]]) * (size / 96)
        sample.gt_instances.bboxes = boxes
        sample.gt_instances.labels = torch.tensor([min(1, classes - 1), 0, 0])
        masks = torch.zeros(3, size, size).numpy().astype('uint8')
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances.masks = type(sample.gt_instances.masks)(masks, size, size)
        sample.gt_sem_seg.sem_seg = sample.gt_sem_seg.sem_seg % max(classes, 1)
        sample.set_metainfo(dict(homography_matrix=torch.eye(3).numpy()))  # for semi-supervised detectors
    if kind == 'FastRCNN':
        for sample, proposals in zip(batch['data_samples'], demo_mm_proposals(shapes, 50)):
            sample.proposals = proposals
    if kind in ('SoftTeacher', 'SemiBaseDetector'):
        names = ('sup', 'unsup_teacher', 'unsup_student')
        batch = {part: {name: copy.deepcopy(batch[part]) for name in names} for part in ('inputs', 'data_samples')}
    return batch


def build(cfg):
    init_default_scope(cfg['default_scope'])
    model = ConfigDict(copy.deepcopy(cfg['model']))
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(model))
    for part in model.modules():
        if getattr(part, 'eps', 1) == 0:  # a shipped BatchNorm has it so, which today's torch refuses to run
            part.eps = 1e-5
    return model


def backbones(cfg, model):
    """The modules at the places of the config's backbones."""
    for host in swap.backbone_hosts(cfg['model'], 'model'):
        name = host.path.partition('.')[2].replace('backbone.backbone_cfg', 'backbone.context_path.backbone')
        yield model.get_submodule(name.replace('detector.', 'student.') if hasattr(model, 'student') else name)


def step(cfg, model, bfloat16=False):
    """Loss of one training step; gradients are left in the model."""
    if bfloat16:
        keep_boxes_in_float32(model)
    with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        try:
            return _step(cfg, model, SIZES[0])
        except Exception as error:
            if 'not found' in str(error) or isinstance(error, NotImplementedError):
                raise
            model.zero_grad()
            return _step(cfg, model, SIZES[1])


def _step(cfg, model, size):
    model.train()
    if 'checkpoint' not in json.dumps(cfg['model'], default=str):
        model.init_weights()
    for part in model.modules():  # pictures stay small: no padding up to the size of the recipe's crops
        if getattr(part, 'batch_augments', None):
            part.batch_augments = None
        if getattr(part, 'size', None) is not None and 'processor' in type(part).__name__.lower():
            part.size = (size, size)
    for counter in ('iter', 'epoch'):  # some losses warm up
        MessageHub.get_current_instance().update_info(counter, 0)
    batch = model.data_preprocessor(made_up_batch(cfg, size), True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    return loss.item()


def sizes(module):
    module.eval()  # mmdet's returns None
    with torch.no_grad():
        outs = module(torch.zeros(1, 3, SIZES[0], SIZES[0]))
    return [tuple(o.shape[-2:]) for o in (outs if isinstance(outs, (tuple, list)) else [outs])]


def gradient_norm(module):
    grads = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(grads).norm()) if grads else 0.0


def reason(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__}: {short(error)} ({Path(where.filename).name}:{where.lineno})'


def examine(framework, name, names, bfloat16):
    """Everything about one config and all backbones: the same dict again and again as it fills."""
    result, was = dict(framework=framework, config=name), []
    old = config_files.read_config(find_config(f'{framework}::{name}').path)
    old.setdefault('default_scope', framework)
    try:
        model = build(old)
        result['shipped'] = 'builds'
        was = [sizes(backbone) for backbone in backbones(old, model)]
    except Exception as error:
        result['shipped'] = reason(error)
    yield result
    for backbone in names:
        model = None  # memory for one
        row = result[backbone] = {}
        try:
            new, notes = swap.swap_config(old, backbone)
        except UserError as error:
            row['refused'] = str(error)
            continue
        row.update(built=False, left_out=[note for note in notes if note.startswith('WARNING')])
        start = time.time()
        try:
            model = build(new)
            row['built'] = True
            if new.get('optim_wrapper'):  # whose constructor refuses names of layers that are not there
                build_optim_wrapper(model, new['optim_wrapper'])
            swapped = list(backbones(new, model))
            row['sizes'] = [sizes(part) for part in swapped] == was if was else None
            row['loss'] = step(new, model, bfloat16)
            ours = [part for part in swapped if isinstance(part, NFBackbone)]
            ours += [part for part in model.modules() if isinstance(part, NFStage)]
            row['gradient'] = [gradient_norm(part) for part in ours]
            finite = abs(row['loss']) < float('inf') and all(0 < norm < float('inf') for norm in row['gradient'])
            row['ok'] = bool(finite and row['sizes'])
        except Exception as error:
            row['error'] = reason(error)
            if row['built'] and result['shipped'] == 'builds' and 'shipped_step' not in result:
                try:
                    result['shipped_step'] = step(old, build(old))
                except Exception as error:
                    result['shipped_step'] = reason(error)
        row['seconds'] = round(time.time() - start, 1)
        yield result
    yield result


def in_child(limit, *args):
    """The last result of :func:`examine` in a process of its own, whatever becomes of it."""
    with tempfile.TemporaryDirectory() as folder:

        def work():
            for result in examine(*args):
                Path(folder, 'part').write_text(json.dumps(result))
                os.replace(Path(folder, 'part'), Path(folder, 'result'))

        child = multiprocessing.get_context('fork').Process(target=work)
        child.start()
        child.join(limit)
        stopped = f'after {limit} s' if child.is_alive() else child.exitcode and f'exit code {child.exitcode}'
        child.kill()
        child.join()
        result = dict(framework=args[0], config=args[1], shipped='stopped')
        if Path(folder, 'result').exists():
            result = json.loads(Path(folder, 'result').read_text())
        return dict(result, stopped=stopped) if stopped else result


def summary(results, names):
    """Counts in a few lines, and each config that falls short."""
    builds = [r for r in results if r['shipped'] == 'builds']
    yield f'{len(results)} distinct models, {len(builds)} build as shipped'
    for name in names:
        rows = [(r, r.get(name, {})) for r in builds]
        count = Counter(key for _, row in rows for key, value in row.items() if value)
        yield (
            f'{name}: of these {len(rows) - count["refused"]} converted, {count["built"]} built, {count["ok"]} trained '
            f'a step; {count["refused"]} refused, {count["left_out"]} left something out'
        )
        for r, row in rows:
            if 'refused' in row:
                yield f'  refused  {r["config"]}: {row["refused"]}'
            elif not row.get('ok'):
                why = row.get('error') or r.get('stopped') or f'loss {row.get("loss")}, sizes {row.get("sizes")}'
                yield f'  no step  {r["config"]}: {why}; as shipped: {r.get("shipped_step", "not tried")}'
    for r in results:
        if r['shipped'] != 'builds':
            yield f'broken as shipped  {r["config"]}: {r["shipped"]}'
    yield repr(Counter(r['framework'] for r in results))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--backbones', nargs='+', default=['nf_resnet50', 'nfnet_f0'])
    parser.add_argument('--frameworks', nargs='+', default=['mmdet', 'mmseg', 'mmpretrain'])
    parser.add_argument('--out', default='work_dirs/sweep_swaps.jsonl', type=Path)
    parser.add_argument('--only', default='', help='only configs whose name holds this; they are examined anew')
    parser.add_argument('--bfloat16', action='store_true', help='steps under autocast as swapped (their own --out)')
    parser.add_argument('--limit', type=float, default=300, help='seconds for one config')
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    warnings.filterwarnings('ignore')
    lines = args.out.read_text().splitlines() if args.out.exists() else ()
    results = {(row['framework'], row['config']): row for row in map(json.loads, lines)}
    for framework in args.frameworks:
        models, broken = shipped(framework)
        found = f'{len(models)} distinct models in {sum(map(len, models.values()))} ResNet-50 configs'
        print(f'{framework}: {found}; {len(broken)} do not load', flush=True)
        register(framework)
        for names in models.values():
            name = min(names, key=lambda n: ('coco' not in n and 'cityscapes' not in n, len(n)))
            if args.only not in name or (not args.only and (framework, name) in results):
                continue
            row = in_child(args.limit, framework, name, args.backbones, args.bfloat16)
            results[framework, name] = row
            with args.out.open('a') as out:
                out.write(json.dumps(row) + '\n')
            print(name, {b: row.get(b, {}).get('ok', False) for b in args.backbones}, flush=True)
    print('\n'.join(summary(list(results.values()), args.backbones)))


if __name__ == '__main__':
    main()
