"""Progress is for eyes: bars on a terminal and in notebooks, nothing in pipes, and stdout stays clean."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

import spec_store
from planted import random_pair
from spec_store.bars import shown, shown_on
from spec_store.errors import InputError
from spec_store.progress import silent

COMPARE = """
import sys, numpy as np, spec_store
from planted import random_pair
a, b = random_pair(3000)
run = spec_store.compare({"a": a, "b": b}, ["a", "b"], dim=30, modes=3, PROGRESS)
run.score(PROGRESS)
print("done", "rich" in sys.modules)
"""


def on_a_terminal(code):
    """What a script prints on stdout, a pipe, and on stderr, a terminal."""
    terminal, end = pty.openpty()
    heard = bytearray()

    def listen():
        while True:
            try:
                part = os.read(terminal, 1 << 16)
            except OSError:  # the script has ended: Linux says so by EIO
                return
            if not part:
                return
            heard.extend(part)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=end, text=True, env=environment
    )
    os.close(end)
    listener = threading.Thread(target=listen)
    listener.start()
    printed = process.communicate()[0]
    listener.join()
    os.close(terminal)
    assert process.returncode == 0, heard.decode()
    return printed, heard.decode()


def test_a_terminal_sees_bars_by_default_and_stdout_stays_clean():
    printed, seen = on_a_terminal(COMPARE.replace("PROGRESS", ""))
    assert printed == "done True\n"
    assert re.search(r"covariance .*3000/3000", seen)
    assert re.search(r"score .*3000/3000", seen)


def test_progress_none_shows_nothing_on_a_terminal():
    printed, seen = on_a_terminal(COMPARE.replace("PROGRESS", "progress=None"))
    assert (printed, seen) == ("done False\n", "")


def test_pipes_see_nothing_and_rich_is_not_imported():
    code = COMPARE.replace("PROGRESS", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("done False\n", "")


def test_what_is_printed_meanwhile_stays_on_stdout():
    code = """
from spec_store.bars import shown
with shown("auto") as update:
    update("stage", 1, 2)
    print("a result")
    update("stage", 1, 2)
"""
    printed, seen = on_a_terminal(code)
    assert printed == "a result\n"
    assert "a result" not in seen


def test_work_within_work_starts_no_second_display():
    code = """
from spec_store.bars import shown
from spec_store.progress import silent
with shown("auto") as outer:
    outer("outer", 1, 2)
    with shown("auto") as inner:
        assert inner is silent
    outer("outer", 1, 2)
with shown("auto") as again:
    assert again is not silent
    raise SystemExit(0)
"""
    _, seen = on_a_terminal(code)
    assert "outer" in seen


def test_stages_and_rows_add_up_for_a_callable():
    heard = []

    def hear(*told):
        heard.append(told)

    a, b = random_pair(500)
    run = spec_store.compare({"a": a, "b": b}, ["a", "b"], dim=30, modes=3, progress=hear)
    run.score(progress=hear)
    rows = {stage: sum(n for s, n, _ in heard if s == stage) for stage, _, _ in heard}
    assert rows == {"covariance": 500, "score": 500}
    assert {total for _, _, total in heard} == {500}


def test_what_is_no_progress_is_refused():
    expected = 'progress is True; expected "auto", None or a callable.'
    with pytest.raises(InputError, match=expected), shown(True):
        pass
    with shown(None) as update:
        assert update is silent


def test_a_log_gets_a_line_at_intervals(monkeypatch, tmp_path):
    clock = iter([0.0, 1.0, 1.0, 2.0, 2.0, 12.0, 12.0, 13.0, 13.0])
    monkeypatch.setattr("spec_store.bars.time.monotonic", lambda: next(clock))
    with open(tmp_path / "log", "w+") as log:
        with shown_on(log) as update:
            for _ in range(4):
                update("write\x1b[2J", 250, 2000)
        log.seek(0)
        assert log.read() == "write\\x1b[2J: 750 of 2,000 rows, 68 rows/s, about 18 s left\n"
