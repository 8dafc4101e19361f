"""How connectors are found: by entry point, each imported only when it is asked for."""

from __future__ import annotations

import functools
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from .connector import Connector
from .errors import ConnectorError, MissingExtraError, SpecStoreError, did_you_mean

__all__ = [
    "ENTRY_POINT_GROUP",
    "InstalledConnector",
    "connector_for",
    "get_connector",
    "installed_connectors",
]

ENTRY_POINT_GROUP = "spec_store.connectors"


@dataclass(frozen=True)
class InstalledConnector:
    """A row of ``spec-store connectors``; `error` says why it can't be used."""

    name: str
    package: str
    version: str
    capabilities: tuple[str, ...]
    error: str | None = None


@functools.lru_cache(maxsize=4)
def _points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is registered by packages on the path: reading that off every installed package takes a while."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def get_connector(name: str) -> Connector:
    """Load the connector registered under `name`; nothing else is imported.

    Raises
    ------
    ConnectorError
        No such name (lists the installed ones), two packages claim it, or its import fails.
    MissingExtraError
        It belongs to an extra of its package that is not installed; holds the install line.
    """
    found = [point for point in _points(tuple(sys.path)) if point.name == name]
    if not found:
        known = {point.name for point in _points(tuple(sys.path))}
        raise ConnectorError(f"No connector named {name!r} is installed. {did_you_mean(name, known)}")
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        raise ConnectorError(
            f"The connector name {name!r} is claimed by {' and '.join(packages)}: uninstall one of them."
        )
    return _load(found[0])


def connector_for(data: object) -> Connector | None:
    """The connector of the store that an open table, data set or connection belongs to; None for other data.

    Only connectors are loaded whose name begins as a module of the object's type does, or the other way
    round: ``lancedb`` for objects of ``lance`` and ``lancedb``. So nothing is imported for a data frame.
    """
    modules = {kind.__module__.partition(".")[0] for kind in type(data).__mro__}
    for name in sorted({point.name for point in _points(tuple(sys.path))}):
        if any(module.startswith(name) or name.startswith(module) for module in modules):
            connector = get_connector(name)
            if connector.recognizes(data):
                return connector
    return None


def installed_connectors() -> list[InstalledConnector]:
    """All registered connectors. One that fails to import is warned of and breaks nothing else."""
    rows = []
    points = sorted(_points(tuple(sys.path)), key=lambda p: (p.name, _package(p)))
    claims = {p.name: {_package(q) for q in points if q.name == p.name} for p in points}
    for point in points:
        capabilities: tuple[str, ...] = ()
        error = None
        if len(claims[point.name]) > 1:
            error = f"name claimed by {' and '.join(sorted(claims[point.name]))}"
        else:
            try:
                capabilities = tuple(sorted(c.value for c in _load(point).capabilities))
            except SpecStoreError as failure:
                error = str(failure)
                warnings.warn(error, stacklevel=2)
        rows.append(InstalledConnector(point.name, *_package_version(point), capabilities, error))
    return rows


def _load(point: EntryPoint) -> Connector:
    try:
        connector = point.load()()
    except SpecStoreError:
        raise
    except ModuleNotFoundError as error:
        if not point.extras:
            raise _broken(point, error) from error
        install = f'pip install "{_package(point)}[{",".join(point.extras)}]"'
        raise MissingExtraError(
            f"The connector {point.name!r} needs {error.name}, which is not installed: {install}"
        ) from error
    except Exception as error:
        raise _broken(point, error) from error
    if not isinstance(connector, Connector):
        raise ConnectorError(
            f"The connector {point.name!r} of package {_package(point)} is a {type(connector).__name__},"
            " not a spec_store.connector.Connector."
        )
    return connector


def _broken(point: EntryPoint, error: Exception) -> ConnectorError:
    return ConnectorError(
        f"The connector {point.name!r} of package {_package(point)} can't be loaded:"
        f" {type(error).__name__}: {error}"
    )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _package_version(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else (point.value, "")
