"""The command: inside this process, or, where that is the point, in one of its own."""

import os
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

from click.testing import CliRunner

from spec_store.cli import main

COMMAND = [str(Path(sys.executable).with_name("spec-store"))]

# A background job, as CI may be, hands down an ignored SIGINT.
_LISTEN = "import os, sys; from signal import *; signal(SIGINT, SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def _environment(db):
    return {**os.environ, **({"SPEC_STORE_DB": db} if db else {})}


_RUNNER = CliRunner(**({"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}))


def run(*arguments, db=None, code=0):
    """What it printed, and on which stream; fails on any other exit code, and on a traceback."""
    done = _RUNNER.invoke(main, list(map(str, arguments)), env={"SPEC_STORE_DB": db}, prog_name="spec-store")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == code, done.stdout + done.stderr
    return done


def run_process(*arguments, db=None, code=0, env=None, text=True, **more):
    """As `run`, in a process of its own: for signals, streams and what happens before Python code runs."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        text=text,
        env=_environment(db) | (env or {}),
        check=False,
        **({"capture_output": True} | more),
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in str(done.stderr)
    return done


def interrupted_while_staging(*arguments, db):
    """Ctrl-C once column files are being written; exit code and what stderr said."""
    command = [sys.executable, "-c", _LISTEN, *COMMAND, *map(str, arguments)]
    nothing_kept = {"SPEC_STORE_CHECKPOINT_SECONDS": "3600"}  # however slow the machine is
    environment = _environment(db) | nothing_kept
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not any(p.stat().st_size for p in Path(db).glob("images.lance/_spec_store/*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    return process.returncode, said
