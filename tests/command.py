"""The real command, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [str(Path(sys.executable).with_name("spec-store"))]

# A background job, as CI may be, hands down an ignored SIGINT.
_LISTEN = "import os, sys; from signal import *; signal(SIGINT, SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def _environment(db):
    return {**os.environ, **({"SPEC_STORE_DB": db} if db else {})}


def run(*arguments, db=None, code=0, cwd=None):
    """What it printed, and on which stream; fails on any other exit code, and on a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=_environment(db),
        cwd=cwd,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def interrupted_while_staging(*arguments, db):
    """Ctrl-C once column files are being written; exit code and what stderr said."""
    command = [sys.executable, "-c", _LISTEN, *COMMAND, *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment(db))
    while not any(p.stat().st_size for p in Path(db).glob("images.lance/_spec_store/*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    return process.returncode, said
