"""Write model-index.yml, the metafiles of configs/imagenet and docs/model_zoo.md anew from the variants and configs."""

import argparse
import os
import sys
from pathlib import Path

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.analysis.model_zoo import zoo_files


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    root = Path(__file__).resolve().parent.parent
    for name, text in zoo_files(root).items():
        path = root / name
        changed = not path.exists() or path.read_text() != text
        if changed:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        print(f'{"written" if changed else "up to date"}: {name}')


if __name__ == '__main__':
    main()
