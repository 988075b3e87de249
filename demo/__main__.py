"""Generate a task's data, train a small NFNet with AGC on them, evaluate, and draw what it says of new pictures."""

import argparse
import os
import sys
from pathlib import Path

# Threads that wait by spinning lose most of the time to each other where the cores are shared: 0.45 s per iteration
# became 2.0 s beside one other busy process. Read when torch loads, therefore before it.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a clone works without installing
from demo.pictures import draw_curves  # noqa: E402
from demo.tasks import TASKS  # noqa: E402
from nfnet_mm import run  # noqa: E402
from nfnet_mm.commands.command_line import CFG_OPTIONS, one_line_errors  # noqa: E402
from nfnet_mm.errors import UserError  # noqa: E402
from nfnet_mm.html_page import Page, Picture  # noqa: E402
from nfnet_mm.inference.page import how_made, read_scalars  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('task', nargs='?', choices=TASKS, default='detection', help='(default: %(default)s)')
    parser.add_argument('--config', help="default: the task's, in demo/configs")
    parser.add_argument('--data', help='folder of the generated pictures (default: in data/)')
    parser.add_argument('--work-dir', help='all else (default: work_dirs/demo_TASK; for detection work_dirs/demo)')
    parser.add_argument('--pictures', type=int, help='validation pictures to draw')
    parser.add_argument('--train', type=int, help='training pictures')
    parser.add_argument('--val', type=int, help='validation pictures')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)
    args = parser.parse_args()
    demo = TASKS[args.task]
    work_dir = 'work_dirs/demo' if args.task == 'detection' else f'work_dirs/demo_{args.task}'
    defaults = dict(vars(demo), config=str(ROOT / 'demo/configs' / demo.config), work_dir=work_dir)
    for name, value in vars(args).items():
        if value is None:
            setattr(args, name, defaults.get(name))
    return args


@one_line_errors
def main() -> None:
    args = parse_args()
    demo = TASKS[args.task]
    print(f'1/4 pictures: {args.train} to train on, {args.val} to validate, in {args.data}', flush=True)
    try:
        demo.generate(args.data, args.train, args.val)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(error) from error
    run.use_safe_loading()
    cfg = run.load_config(args.config, None, args.work_dir)
    run.use_data_root(cfg, args.data)
    cfg.merge_from_dict(args.cfg_options or {})
    print(f'2/4 training: {cfg.train_cfg.max_iters} iterations', flush=True)
    runner = run.build_runner(cfg)
    runner.train()
    print(f'3/4 drawing {args.pictures} predictions and the curves', flush=True)
    pictures = Path(args.work_dir) / 'pictures'
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob('*.png'):
        old.unlink()
    demo.draw(runner, pictures, args.pictures)
    curves = read_scalars(Path(runner.log_dir) / 'vis_data' / 'scalars.json')
    draw_curves(pictures / 'curves.png', curves, demo.curves)
    last = {name: values[-1] for name, (_, values) in curves.items()}
    figures = [text.format(scale * last[name]) for name, (text, scale) in demo.metrics.items() if name in last]
    result = f'{", ".join(figures)} on {len(runner.val_dataloader.dataset)} validation pictures'
    weights = Path(runner.work_dir, 'last_checkpoint').read_text().strip()
    page = write_page(args, result, pictures, curves, how_made(Path(weights), dict(iter=runner.iter)))
    print('4/4 done')
    print(f'weights:  {weights}')
    print(f'log:      {Path(runner.log_dir) / runner.timestamp}.log')
    print(f'pictures: {pictures}/ (predictions, and curves.png)')
    print(f'page:     {page}')
    print(f'result:   {result}', flush=True)
    Path(args.work_dir, 'result.txt').write_text(f'{args.task + ":":16}{result}; {pictures}/\n')


def write_page(
    args: argparse.Namespace, result: str, pictures: Path, curves: dict[str, tuple[list, list]], made: dict[str, object]
) -> Path:
    """What the demo ends with, as a page: the result, pictures, the training's curves and how it was made."""
    demo = TASKS[args.task]
    page = Page(f'Demo: {args.task}', args.work_dir)
    page.text(f'{result}.')
    page.section('Predictions beside the truth')
    drawn = sorted(path for path in pictures.glob('*.png') if path.name != 'curves.png')
    page.grid((Picture(path, path.stem) for path in drawn), width=30 if len(drawn) > 2 else 60)
    page.section('Training')
    panels = {title: {name: curves[name] for name in names if name in curves} for title, names in demo.curves.items()}
    page.charts({title: lines for title, lines in panels.items() if lines}, 'iteration')
    page.section('How it was made')
    page.facts(dict(config=args.config, command=f'python demo {args.task}', data=f'{args.data}, generated', **made))
    return page.write()


if __name__ == '__main__':
    main()
