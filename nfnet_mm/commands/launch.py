"""``python -m nfnet_mm.commands.launch``: torch's launcher, which leaves it to the processes to say what went wrong."""

import logging
import os
import sys
from typing import NoReturn

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

TOLD = (2, 70, 75, 130)  # exit statuses after the line of a command, or of a run that a signal ended


def main() -> NoReturn:
    """Start the processes, and exit with the status of the first that failed.

    Raises:
        SystemExit: always. What the commands do not say themselves is told: a process that was killed, or a port in
            use.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith('torch.distributed.elastic'):  # it reports each failed process on several lines
            logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, '1')  # as torch and mmengine would do, in a warning of each process
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        status = failure.exitcode
        if status < 0:
            print(f'error: process {rank} was killed by signal {-status}', file=sys.stderr)
        elif status not in TOLD:
            print(f'error: process {rank} ended with exit status {status}; its traceback is above', file=sys.stderr)
        sys.exit(status if status > 0 else 128 - status)
    except SignalException as stop:
        sys.exit(128 + stop.sigval)
    except RuntimeError as error:
        if 'EADDRINUSE' not in str(error):
            raise
        port = os.environ.get('PORT', '29500')
        what = f'port {port} is in use, by another run on this machine: set PORT to another'
        print(f'error: {what}, e.g. PORT={int(port) + 1}', file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == '__main__':
    main()
