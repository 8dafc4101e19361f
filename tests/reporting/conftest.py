from types import SimpleNamespace

import pytest

import spec_store
from reported import compared


@pytest.fixture(scope="session")
def things(tmp_path_factory):
    """A compared and aligned table, and its page: `db`, `page`."""
    folder = tmp_path_factory.mktemp("things")
    db = compared(folder)
    spec_store.align("things", "clip", "dino", db=db, key="id", held_out=0.2, seed=1, force=True).write()
    page = spec_store.report("things", folder / "page.html", db=db, show=("picture", "text", "link", "size"))
    return SimpleNamespace(db=db, page=page)
