"""Turn the labelled NYU Depth v2 file into data/nyu/{images,annotations}/{train,test}. Run again to resume.

The test images are those of the protocol; its training images are frames of the videos, see docs/depth.md.

Needs nyu_depth_v2_labeled.mat and splits.mat, both from the data set's site, and h5py and scipy.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('mat', help='nyu_depth_v2_labeled.mat')
    parser.add_argument('splits', help='splits.mat, the standard split into 795 training and 654 test images')
    parser.add_argument('--out', default='data/nyu', help='folder to write to (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Write the folders."""
    from nfnet_mm.tasks.depth.prepare import prepare_nyu

    print(f'{prepare_nyu(args.mat, args.splits, args.out)} images and depth maps written to {args.out}')
