"""Say what is installed and what this machine has; for each problem, the fix. Status 0 if training can run, else 1."""

import argparse
import sys

from nfnet_mm.doctor import report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none."""


def run(args: argparse.Namespace) -> None:
    """Report."""
    sys.exit(0 if report() else 1)
