"""The package as a whole: what it offers, what importing it costs."""

import subprocess
import sys
from pathlib import Path

import spec_store


def test_the_package_shows_its_api_and_no_submodules():
    assert sorted(dir(spec_store)) == sorted([*spec_store.__all__, "__version__"])
    assert set(spec_store._HOMES) == set(spec_store.__all__)
    assert all(callable(getattr(spec_store, name)) for name in spec_store.__all__)
    assert spec_store.__version__ == "0.1.0"


def test_no_public_name_is_that_of_a_room_whose_import_would_take_its_place():
    rooms = {path.stem for path in Path(spec_store.__file__).parent.iterdir()}
    assert not rooms & set(spec_store.__all__)


def test_importing_the_package_imports_neither_scipy_nor_a_store():
    heavy = "{'scipy', 'faiss', 'lance', 'lancedb', 'pyarrow', 'numpy'}"
    code = f"import sys, spec_store, spec_store.cli; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "spec_store", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("spec-store, version 0.1.0")
