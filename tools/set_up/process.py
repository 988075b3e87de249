"""Run a slow command in the user's sight, so that a kill leaves nothing behind but what it has finished."""

import os
import re
import signal
import subprocess
import time

from set_up.machine import SetupError

BEAT = 5.0  # seconds: the longest silence
NETWORK = (
    r'^(ERROR|WARNING|pip\._vendor).*'
    r'(No matching|Could not find a version|Connection|resolution|[Tt]imed ?out|Timeout|SSL|Proxy|HTTP)'
)


def say(text):
    print(text, flush=True)


def run(at, cmd, log, what, news, **kwargs):
    """Run `cmd` with its output in the file `log`; at least every BEAT seconds one line says how far it is.

    `news` turns a line of output into what the user should read, or None. The command writes to the file itself, so it
    lives on if this process is killed outright; it holds the lock meanwhile. Raises SetupError when it fails.
    """
    kwargs.update(stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[at.lock] if at.lock else [])
    start = shown = time.monotonic()
    latest, fresh, rest = what, True, b''
    with open(log, 'ab') as sink, open(log, 'rb') as source:
        source.seek(0, os.SEEK_END)
        begin = source.tell()
        proc = subprocess.Popen(cmd, stdout=sink, stderr=subprocess.STDOUT, **kwargs)
        try:
            while True:
                ended = proc.poll() is not None
                *lines, rest = (rest + source.read()).split(b'\n')
                for line in lines:
                    text = news(line.decode(errors='replace').strip())
                    latest, fresh = (text, True) if text else (latest, fresh)
                now = time.monotonic()
                if (fresh and now - shown >= 1) or now - shown >= BEAT:
                    say(f'  [{now - start:4.0f} s] {latest[:100]}')
                    shown, fresh = now, False
                if ended:
                    break
                time.sleep(0.2)
        except KeyboardInterrupt:
            for sig in (signal.SIGINT, signal.SIGKILL):  # all of its children too
                try:
                    os.killpg(proc.pid, sig)
                    proc.wait(10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass
            raise
        source.seek(begin)
        output = source.read().decode(errors='replace')
    if proc.returncode:
        raise SetupError(explain(output, what, log))
    return output


def explain(output, what, log):
    """One line on why a command failed, from its output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ['(no output)']
    cause = next((line for line in reversed(lines) if re.search(r'\berror\b', line, re.I)), lines[-1])
    if re.search('No space left on device', output):
        advice = 'the disk is full: free some space and run make again'
    elif re.search(r'Killed signal|signal 9|out of memory|cannot allocate', output, re.I):
        advice = 'the machine ran out of memory: run make again with MAX_JOBS=1 in the environment'
    elif re.search(NETWORK, output, re.M):
        advice = 'pip could not get it from its index: check the network (proxy, PIP_INDEX_URL) and run make again'
    else:
        advice = f'read {log}, mend the cause and run make again'
    return f'{what} failed ("{cause[:160]}"): {advice}; what is done is kept.'


def pip_news(line):
    if line.startswith('Installing collected packages:'):
        return f'installing {line.count(",") + 1} packages'
    return line if re.match(r'(Downloading|Building wheel|Preparing) ', line) else None


def pip(at, what, *args):
    """Run pip in .venv, its output in .venv/build/pip.log."""
    say(f'- {what}')
    command = [str(at.python), '-m', 'pip', *map(str, args), '--no-input', '--disable-pip-version-check']
    run(at, command, at.build / 'pip.log', what, pip_news, cwd=str(at.root))
