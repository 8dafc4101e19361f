"""The built wheel, in an environment of its own."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_shows_exactly_its_own_names_and_works_without_dev_dependencies(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    connectors = {"spec_store_arrow", "spec_store_faiss", "spec_store_lancedb"}
    assert top == {"spec_store", "spec_store-0.1.0.dist-info"} | connectors
    assert "spec_store/py.typed" in zipfile.ZipFile(wheel).namelist()
    for asset in ("page.html.jinja", "page.css", "page.js"):
        assert f"spec_store/reporting/assets/{asset}" in zipfile.ZipFile(wheel).namelist()

    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    pip = [binaries / "pip", "install", "--quiet", "--disable-pip-version-check", *constraints, str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    shown = subprocess.run(
        [binaries / "spec-store", "--help"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "compare" in shown.stdout
    listed = subprocess.run(
        [binaries / "spec-store", "connectors"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "lancedb" in listed.stdout
    refused = [
        (["demo", "--db", "x"], "demo"),
        (["report", "--table", "images", "--db", "x", "-o", "page.html"], "report"),
    ]
    for arguments, extra in refused:
        done = subprocess.run(
            [binaries / "spec-store", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 1
        assert f'pip install "spec-store[{extra}]"' in done.stderr
