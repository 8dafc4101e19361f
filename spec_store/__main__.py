"""``python -m spec_store`` is the command ``spec-store``."""

from .cli import main

main(prog_name="spec-store")
