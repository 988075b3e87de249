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
    for name, text in {**config_files(), **zoo_files()}.items():
        path = root / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f'written: {name}')


if __name__ == '__main__':
    main()
