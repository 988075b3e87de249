"""Train any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse

from nfnet_mm import run as runs

from .command_line import CONFIG_HELP, add_instead, add_run_options, load_config, was_interrupted

# What other train tools have, and what does it here.
INSTEAD = {
    '--auto-resume': '--resume',
    '--resume-from': '--resume PATH',
    '--load-from': '--cfg-options load_from=PATH',
    '--seed': '--cfg-options randomness.seed=N',
    '--diff-seed': '--cfg-options randomness.diff_rank_seed=True',
    '--deterministic': '--cfg-options randomness.deterministic=True',
    '--gpus': 'tools/dist_train.sh CONFIG PROCESSES',
    '--gpu-ids': 'CUDA_VISIBLE_DEVICES=N in the environment',
    '--gpu-id': 'CUDA_VISIBLE_DEVICES=N in the environment',
    '--options': '--cfg-options KEY=VALUE',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='last',
        metavar='auto|PATH',
        help="go on from this checkpoint, or from the work folder's last whole one; with auto, begin if there is none",
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, by the wrapper that else does what the configured one does'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate to the devices' batch from the config's auto_scale_lr.base_batch_size; a config "
        'that states a total batch keeps it on any number of devices, and needs none',
    )
    parser.add_argument('--no-validate', action='store_true', help='train without validating')
    add_run_options(parser)
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='end the workers of the data loaders after each epoch'
    )
    add_instead(parser, INSTEAD)


def run(args: argparse.Namespace) -> None:
    """Train."""
    cfg = load_config(args)
    runs.use_resume(cfg, args.resume)
    if args.amp:
        runs.use_amp(cfg)
    if args.auto_scale_lr:
        runs.use_auto_scale_lr(cfg)
    if args.no_validate:
        runs.skip_validation(cfg)
    runs.set_loaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    runs.say_unused_gpu()
    runs.check_amp_device(cfg)
    runs.check_data(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',))
    runs.prepare_launcher(cfg)
    runner = runs.build_runner(cfg)
    runs.check_labels(runner)
    runs.require_whole(runner, allow_missing=not cfg.get('resume'))
    try:
        runs.train(runner)
    except BaseException as error:
        if not was_interrupted(error):
            raise
        raise KeyboardInterrupt(runs.how_to_go_on(runner)) from error
