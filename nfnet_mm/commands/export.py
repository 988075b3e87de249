"""Write a trained model as a file for other runtimes, in plain convs, and hold the file against the model."""

import argparse
import json
from typing import Any

from nfnet_mm import run as runs
from nfnet_mm.deploy import deployed, export_model, save_folded
from nfnet_mm.deploy.export import check_target
from nfnet_mm.deploy.export.formats import SUFFIXES, check_format, check_opset
from nfnet_mm.deploy.export.outputs import model_kind, preprocessing

from .command_line import CFG_OPTIONS, CONFIG_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    formats = ', '.join(f'{suffix} ({name})' for suffix, name in SUFFIXES.items())
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        'checkpoint',
        help='checkpoint: a file or an address; for a classifier also public weights by name; none: random weights',
    )
    parser.add_argument('out', help=f'file to write; its suffix tells the format: {formats}')
    parser.add_argument('--format', metavar='NAME', help=f'one of {", ".join(SUFFIXES.values())}')
    parser.add_argument(
        '--opset', type=int, metavar='N', help='of ONNX, at least 17 (default: 20, GELU as one operator)'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=(128, 160), metavar=('H', 'W'), help='to trace and check near (128 160)'
    )
    parser.add_argument(
        '--with-preprocessing',
        action='store_true',
        help='take RGB images with values from 0 to 255 and normalise them in the graph, as the config does',
    )
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Export, and say how far the file is from the model."""
    kind = check_format(args.out, args.format)
    check_target(args.out)
    check_opset(args.opset)
    cfg = runs.load_config(args.config, args.cfg_options)
    checkpoint = None if args.checkpoint.lower() == 'none' else args.checkpoint
    model, meta = runs.load_trained(cfg, checkpoint)
    if kind == 'checkpoint':
        save_folded(model, args.out, {key: meta[key] for key in ('dataset_meta', 'dialect') if key in meta})
        print(f'{args.out}: folded weights, for testing and inference')
        return
    told = _told(cfg, args, model, meta)
    print(export_model(deployed(model, args.with_preprocessing), args.out, kind, args.opset, args.size, metadata=told))


def _told(cfg: Any, args: argparse.Namespace, model: Any, meta: dict[str, Any]) -> dict[str, str]:
    """What the file says of itself."""
    data = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    classes = (meta.get('dataset_meta') or data.get('metainfo') or {}).get('classes') or ()
    found = preprocessing(model)
    stride = max(max(getattr(part, 'out_strides', (1,))) for part in model.modules())
    told = dict(
        task=model_kind(model),
        input='RGB, values from 0 to 255' if args.with_preprocessing else 'normalised by mean and std',
        stride=stride,
        config=cfg.get('filename') or args.config,
        checkpoint=args.checkpoint,
        classes=list(classes),
        **found,
    )
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
