"""Write what nfnet_mm/recipes tells: configs, the model zoo, docs/reproduce.md and the tables in other pages of docs.

Run it after adding a row, of an experiment or of the networks.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # a clone works without installing
from nfnet_mm.errors import UserError  # noqa: E402

try:
    from nfnet_mm.analysis.model_zoo import result_files, zoo_files
except UserError as error:  # a row of a table is wrong
    sys.exit(f'error: {error}')
from nfnet_mm.analysis.reproduce import reproduce_files  # noqa: E402
from nfnet_mm.analysis.scaling_page import scaling_files  # noqa: E402
from nfnet_mm.analysis.transfer_cost import cost_files  # noqa: E402
from nfnet_mm.commands.command_line import one_line_errors  # noqa: E402
from nfnet_mm.config_files import WRITTEN, config_files  # noqa: E402


@one_line_errors
def main() -> None:
    """Write the files that are not as they should be."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    files = {**config_files(), **zoo_files(), **reproduce_files(), **result_files(ROOT), **scaling_files(ROOT)}
    if find_spec('mmdet') and find_spec('mmseg'):  # whose models are built to be counted
        files |= cost_files(ROOT)
    else:
        print('left as it is, for it needs mmdet and mmseg: docs/training_cost.md')
    old = {name: (ROOT / name).read_text() for name in files if (ROOT / name).exists()}
    changed = {name: text for name, text in files.items() if text != old.get(name)}
    for name, text in changed.items():
        (ROOT / name).write_text(text)
        print(f'written: {name}')
    print(f'{len(files) - len(changed)} of {len(files)} files were up to date')
    for path in sorted((ROOT / 'configs').rglob('*.py')):
        if path.read_text().startswith(WRITTEN) and str(path.relative_to(ROOT)) not in files:
            print(f'no recipe makes it any more, delete it: {path.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
