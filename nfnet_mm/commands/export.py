"""Write a trained model as a file for other runtimes, in plain convs, and hold the file against the model."""

import argparse
import json
from typing import Any

import torch

from nfnet_mm import run as runs
from nfnet_mm.deploy import deployed, evaluate, export_model, half, quantize, save_folded, worst_difference
from nfnet_mm.deploy.calibration import calibration_images
from nfnet_mm.deploy.export import check_target
from nfnet_mm.deploy.export.formats import RUNNERS, SUFFIXES, check_format, check_opset
from nfnet_mm.deploy.export.outputs import model_kind, preprocessing, stride_of
from nfnet_mm.deploy.half import DTYPES
from nfnet_mm.deploy.quantize import RUNTIMES
from nfnet_mm.errors import UserError
from nfnet_mm.inference import find_images, is_video

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
    parser.add_argument('--paste-masks', action='store_true', help="of a detector, masks of the picture's size")
    parser.add_argument('--half', choices=DTYPES, help='compute in half precision, and tell the error (ONNX: fp16)')
    parser.add_argument(
        '--int8', metavar='FOLDER', help='quantise an ONNX file by the pictures in a folder, or of a pattern'
    )
    parser.add_argument(
        '--runtime', choices=RUNTIMES, default='openvino', help='for which --int8 places the scales (default: openvino)'
    )
    parser.add_argument(
        '--metric',
        action='store_true',
        help="score the network and the file, in onnxruntime, on the config's test data",
    )
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Export, and say how far the file is from the model."""
    kind = check_format(args.out, args.format)
    check_target(args.out)
    check_opset(args.opset)
    _check(args, kind)
    cfg = runs.load_config(args.config, args.cfg_options)
    checkpoint = None if args.checkpoint.lower() == 'none' else args.checkpoint
    model, meta = runs.load_trained(cfg, checkpoint)
    if kind == 'checkpoint':
        save_folded(model, args.out, {key: meta[key] for key in ('dataset_meta', 'dialect') if key in meta})
        print(f'{args.out}: folded weights, for testing and inference')
        return
    told = _told(cfg, args, model, meta)
    net: torch.nn.Module = deployed(model, args.with_preprocessing, args.paste_masks)
    files = [path for path in find_images([args.int8]) if not is_video(path)] if args.int8 else []
    pictures = calibration_images(cfg, model, files) if args.int8 else None
    if args.half:
        full, net = net, half(net, args.half)
        images = torch.randn(1, 3, *args.size, generator=torch.Generator().manual_seed(0))
        if model_kind(model) != 'detector':  # whose objects are not as many
            with torch.no_grad():
                print(f'{args.half}: relative error {worst_difference(net(images), full(images)):.1e} against float32')
    print(export_model(net, args.out, kind, args.opset, args.size, metadata=told))
    if pictures is not None:
        quantize(args.out, args.out, pictures, args.runtime)
        print(f'{args.out}: convs and matrix products in 8-bit integers, placed for {args.runtime}')
    if args.metric:
        _print_metrics(cfg, args, model)


def _check(args: argparse.Namespace, kind: str) -> None:
    """Refuse options that do not go together."""
    if args.half == 'bf16' and kind == 'onnx':
        raise UserError('--half bf16: onnxruntime has no convs in bfloat16 on a CPU; fp16, or an .xml, .pt2 or .pt')
    if args.int8 and (kind != 'onnx' or args.half or args.with_preprocessing):
        raise UserError('--int8 is for .onnx files in float32 of normalised images: no --half, no --with-preprocessing')
    if args.metric and (kind != 'onnx' or args.with_preprocessing):
        raise UserError('--metric is for .onnx files of normalised images: no --with-preprocessing')
    if args.metric and args.checkpoint.lower() == 'none':
        raise UserError('--metric scores a trained network: name its checkpoint')


def _print_metrics(cfg: Any, args: argparse.Namespace, model: torch.nn.Module) -> None:
    objects = model_kind(model) == 'detector'
    cfg.load_from, cfg.resume = None, False  # the model has its weights, of a folded checkpoint too
    cfg.setdefault('work_dir', 'work_dirs/export')
    runner = runs.build_runner(cfg)
    runner.model = model.to(next(runner.model.parameters()).device)
    run = RUNNERS['onnx'](args.out)

    def function(images: torch.Tensor) -> Any:
        outputs = [torch.from_numpy(one) for one in run(images.numpy())]
        return outputs if objects else outputs[0]

    before, after = evaluate(runner), evaluate(runner, function)
    for name, value in before.items():
        print(f'{name}: {value:.4g} in torch, {after[name]:.4g} of the file')


def _told(cfg: Any, args: argparse.Namespace, model: Any, meta: dict[str, Any]) -> dict[str, str]:
    """What the file says of itself."""
    data = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    classes = (meta.get('dataset_meta') or data.get('metainfo') or {}).get('classes') or ()
    found = preprocessing(model)
    told = dict(
        task=model_kind(model),
        input='RGB, values from 0 to 255' if args.with_preprocessing else 'normalised by mean and std',
        stride=stride_of(model),
        config=cfg.get('filename') or args.config,
        checkpoint=args.checkpoint,
        classes=list(classes),
        **found,
    )
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
