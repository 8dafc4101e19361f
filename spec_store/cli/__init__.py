"""The command line: parse, build options, call the library, print. Each command is one public function.

`group` is the command group, the modules of commands add theirs when imported.
"""

import sys

try:
    from . import (  # noqa: F401  # each adds its commands
        align,
        clusters,
        compare,
        export,
        gate,
        report,
        tables,
        update,
        worker,
    )
    from .group import main
except KeyboardInterrupt:  # Ctrl-C at once: these imports are most of the first tenth of a second
    sys.stderr.write("Interrupted. Nothing was begun.\n")
    raise SystemExit(130) from None

__all__ = ["main"]
