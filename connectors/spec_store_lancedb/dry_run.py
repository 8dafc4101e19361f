"""A commit tried on a clone of the table's metadata, since the real one checks next to nothing."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping

import lance

from spec_store.connector import Annotation
from spec_store.errors import SpecStoreError

from .columns import add_result_columns, has_result_columns
from .dataset import local_folder
from .ledger import Ledger, Staged
from .objects import FOLDER
from .staging import replacement

__all__ = ["dry_run_commit", "remove_dry_run"]


def dry_run_commit(
    current: lance.LanceDataset, staged: Mapping[int, Staged], annotation: Annotation, ledger: Ledger
) -> None:
    """Commit staged files to a shallow clone, read each file's last row, and delete the clone.

    The clone is a manifest that refers to the table's own data files; it lies in the ledger's folder, where
    the next run finds it should this one be killed. (Lance writes a clone to the table's own store, whatever
    scheme its address has, so it can't lie in a temporary folder of this machine.)

    Raises SpecStoreError where the columns don't read back, and whatever Lance raises.
    """
    fragments = current.get_fragments()
    if not fragments:
        return
    schema = annotation.schema
    try:
        clone = current.shallow_clone(_address(current, ledger), current.version)
        if not has_result_columns(clone.schema, schema):
            clone = add_result_columns(clone, schema, annotation.marks)
        operation = replacement(clone, staged, schema, _base_id(clone, current))
        trial = lance.LanceDataset.commit(clone, operation, read_version=clone.version)
        trial.validate()
        for f in schema:
            if trial.schema.field(f.name).type != f.type:
                raise SpecStoreError(f"Column {f.name!r} is {trial.schema.field(f.name).type}, not {f.type}.")
        n_rows = [f.count_rows() for f in fragments]
        last_rows = [end - 1 for n, end in zip(n_rows, itertools.accumulate(n_rows), strict=True) if n]
        found = trial.take(last_rows, columns=schema.names)
        if len(found) != len(last_rows) or trial.count_rows() != sum(n_rows):
            raise SpecStoreError(
                f"A dry-run commit reads {len(found)} of {len(last_rows)} rows, and counts"
                f" {trial.count_rows()} where the table has {sum(n_rows)}."
            )
    finally:
        remove_dry_run(current, ledger)


def remove_dry_run(dataset: lance.LanceDataset, ledger: Ledger) -> None:
    """Delete the clone, if there is one."""
    folder = local_folder(dataset)
    if folder is not None:
        if (clone := folder / FOLDER / _name(ledger)).exists():
            shutil.rmtree(clone)
        return
    session = dataset.new_file_session()
    for name in session.list(f"{FOLDER}/{_name(ledger)}"):
        session.delete_file(name)


def _name(ledger: Ledger) -> str:
    return f"{ledger.name}.dry-run"


def _address(dataset: lance.LanceDataset, ledger: Ledger) -> str:
    return f"{dataset.uri.rstrip('/')}/{FOLDER}/{_name(ledger)}"


def _base_id(clone: lance.LanceDataset, original: lance.LanceDataset) -> int:
    """The number under which the clone's manifest lists the original's folder."""
    # LanceDataset.base_paths came after pylance 9.0.1.
    paths = clone._ds.base_paths()
    root = original.uri.rstrip("/")
    for base_id, base in paths.items():
        if base.is_dataset_root and base.path.rstrip("/") == root:
            return int(base_id)
    raise SpecStoreError(f"A clone of {root} lists only {', '.join(b.path for b in paths.values())}.")
