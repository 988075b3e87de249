"""Write anew what is written from the tables of recipes and networks: their configs and the model zoo."""

import argparse
import os
import sys
from pathlib import Path

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.analysis.configs import config_files
from nfnet_mm.analysis.model_zoo import zoo_files


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    root = Path(__file__).resolve().parent.parent
    files = {**config_files(), **zoo_files()}
    old = {name: (root / name).read_text() for name in files if (root / name).exists()}
    changed = {name: text for name, text in files.items() if text != old.get(name)}
    for name, text in changed.items():
        (root / name).write_text(text)
        print(f'written: {name}')
    print(f'{len(files) - len(changed)} of {len(files)} files were up to date')


if __name__ == '__main__':
    main()
