"""`python tools/set_up` makes .venv; see environment.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # Python puts this folder there when it runs one
from set_up.environment import main  # noqa: E402

sys.exit(main())
