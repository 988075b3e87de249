"""`python -m nfnet_mm benchmark`, from a clone too that is not installed."""

import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from nfnet_mm.commands import main

if __name__ == '__main__':
    main('benchmark')
