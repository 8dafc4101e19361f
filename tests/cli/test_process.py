"""What needs a process of its own: signals, closed streams, encodings, and the time to start."""

import ctypes
import os
import re
import signal
import subprocess
import sys

import lancedb
import pyarrow as pa
import pytest

from command import COMMAND, run, run_process


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("store"))
    data = pa.table({"id": range(20_000), "name": ["σ-Größe"] * 20_000})
    lancedb.connect(folder).create_table("names", data)
    return folder


QUERY = ["query", "--table", "names"]


@pytest.mark.parametrize("style", ["csv", "jsonl", "table"])
def test_a_reader_that_leaves_ends_the_command_quietly(store, style):
    command = [*COMMAND, *QUERY, "--format", style, "--limit", "20000", "--db", store]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout.readline()
    done.stdout.close()
    said = done.stderr.read()
    assert (done.wait(), said) == (128 + signal.SIGPIPE, b"")
    done.stderr.close()


def test_a_closed_stdout_is_no_failure(store):
    command = f"exec {' '.join([*COMMAND, *QUERY, '--format', 'csv', '--db', store])} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_behind_stdout_is_named(store):
    with open("/dev/full", "wb") as full:
        more = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = run_process(*QUERY, "--format", "csv", db=store, code=1, **more)
    assert done.stderr == "Error: The output can't be written to stdout: No space left on device.\n"


def test_an_ascii_stdout_is_no_failure(store):
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = run_process(*QUERY, "--limit", "1", db=store, env=ascii_only, text=False).stdout
    assert shown.decode() == "id  name\n 0  σ-Größe\n"
    piped = run_process(*QUERY, "--limit", "1", "--format", "csv", db=store, env=ascii_only, text=False)
    assert piped.stdout.decode() == "id,name\n0,σ-Größe\n"
    assert "σ" in run_process("compare", "--help", env=ascii_only).stdout


# What a person who presses Ctrl-C in the first second does, at a moment that is always the same.
_INTERRUPTED_IMPORT = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

interrupted = sys.argv[1]

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
del sys.argv[0]
runpy.run_module("spec_store", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["click", "spec_store.workflows.query", "pyarrow.lib", "lance"])
def test_ctrl_c_while_modules_are_imported_is_told_in_one_line(store, module):
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT, module, *QUERY, "--db", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert re.fullmatch(r"Interrupted\. Nothing .*\n", done.stderr)
    assert done.stdout == ""


def test_an_interrupt_that_arrow_made_an_error_of_is_one(monkeypatch):
    def read(*arguments, **options):
        def batches():
            raise KeyboardInterrupt
            yield

        return pa.RecordBatchReader.from_batches(pa.schema([("x", pa.int64())]), batches())

    monkeypatch.setattr("spec_store.workflows.query.query", read)
    done = run(*QUERY, code=130)
    assert done.stderr == "Interrupted. Nothing unfinished was left in the table.\n"


def test_an_interrupt_of_the_clean_up_is_told_truly(monkeypatch):
    def interrupted(*arguments, **options):
        try:
            raise KeyboardInterrupt
        finally:
            raise KeyboardInterrupt

    monkeypatch.setattr("spec_store.workflows.query.query", interrupted)
    said = run(*QUERY, code=130).stderr
    assert said == "Interrupted. The clean-up was interrupted too: the next run removes what is left.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compare", "--help"], ["query"]])
def test_the_command_line_starts_without_what_only_work_needs(arguments):
    code = (
        "import sys; from spec_store.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(' '.join(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert loaded & {"numpy", "pyarrow", "rich", "lance", "lancedb", "scipy", "faiss", "pandas"} == set()


def test_the_package_and_its_module_are_one_command():
    module = [sys.executable, "-m", "spec_store", "--help"]
    listed = subprocess.run(module, capture_output=True, text=True, check=True).stdout
    assert listed.startswith("Usage: spec-store ")
    assert run_process("--help").stdout == listed


def test_threads_of_the_process_share_one_pool_of_free_memory(tmp_path):
    code = (
        "import ctypes, sys, threading; from spec_store.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "c = ctypes.CDLL(None)\n"
        "together = threading.Barrier(8)\n"
        "def allocate(): together.wait(); bytes(50_000); together.wait()\n"
        "threads = [threading.Thread(target=allocate) for _ in range(8)]\n"
        "[t.start() for t in threads], [t.join() for t in threads]\n"
        "c.fopen.restype = ctypes.c_void_p\n"
        "stream = ctypes.c_void_p(c.fopen(sys.argv[1].encode(), b'w'))\n"
        "c.malloc_info(0, stream), c.fclose(stream)\n"
    )
    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("the C library is not glibc")
    plain = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "pools.xml"], check=True, env=plain)
    assert (tmp_path / "pools.xml").read_text().count("<heap ") == 1
