"""spec-store on many tables in one process: python annotate.py FOLDER TABLE,TABLE,… VERB OPTION …

The last line printed is JSON: by table "ok", or what was said.
"""

import json
import sys

from click.testing import CliRunner

from spec_store.cli import main


def outcome(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    if done.exit_code == 0:
        return "ok"
    return " ".join((done.output or repr(done.exception)).split())[-300:]


if __name__ == "__main__":
    folder, tables, verb, *options = sys.argv[1:]
    each = ["--db", folder, *options]
    print(json.dumps({table: outcome(verb, "--table", table, *each) for table in tables.split(",")}))
