"""The command line: parse, build options, call the library, print. Each command is one public function.

`group` is the command group and what commands share; the other modules add theirs to it when imported.
"""

from . import align, compare, tables  # noqa: F401  # each adds its commands
from .group import main

__all__ = ["main"]
