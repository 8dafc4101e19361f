"""Small objects of ours beside a table in an object store, written on condition that nobody else has."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import lance

__all__ = ["FOLDER", "NEW", "Held", "Objects", "TakenError", "objects_at", "objects_of"]

FOLDER = "_spec_store"
"""Where they are, in the table's folder; local tables keep their ledgers there too."""

NEW = ""
"""As the tag that a write expects: there is no such object yet."""

_PROBE = "probe-"
# Of obstore's options, those of its HTTP client; Lance takes all in one.
_CLIENT_OPTIONS = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_only"),
        *("http2_keep_alive_while_idle", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_url"),
        *("proxy_ca_certificate", "proxy_excludes", "randomize_addresses", "timeout", "user_agent"),
    }
)
_RETRIES = 5
# Where obstore looks for the keys of S3 besides the options, apart from the machine's own role.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


class TakenError(Exception):
    """Another writer's object is there, or has taken the place of the one expected."""


@dataclass(frozen=True)
class Held:
    """An object as it was read.

    Attributes
    ----------
    tag
        Names this content; None in a store without conditional writes.
    age
        Seconds since it was written, by the store's clock; None where the store doesn't tell.
    """

    data: bytes
    tag: str | None
    age: float | None


class Objects(ABC):
    """The objects in one table's folder `FOLDER`.

    Attributes
    ----------
    unconditional
        Why writes can't be made conditional; empty where they can.
    """

    unconditional: str = ""

    @abstractmethod
    def get(self, name: str) -> Held | None:
        """None where there is no such object."""

    @abstractmethod
    def put(self, name: str, data: bytes, expected: str | None = None) -> str | None:
        """Write an object; its tag.

        Parameters
        ----------
        expected
            The tag of the content to be replaced, or `NEW`; None replaces anything.

        Raises
        ------
        TakenError
            Something else is there.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Nothing is done where there is no such object."""

    @abstractmethod
    def ages(self) -> dict[str, float | None]:
        """By name, seconds since each object was written, as `Held.age`."""


P = ParamSpec("P")
T = TypeVar("T")


def _as_os_errors(request: Callable[P, T]) -> Callable[P, T]:
    """Raise obstore's errors, which are of its own kind, as Lance raises them: as an OSError."""

    @wraps(request)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        from obstore.exceptions import BaseError

        try:
            return request(*args, **kwargs)
        except BaseError as error:
            raise OSError(str(error).partition("\n\nDebug source")[0]) from error

    return wrapped


class _StoreObjects(Objects):
    """By obstore, which writes conditionally."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._offset: float | None = None

    @property
    def unconditional(self) -> str:  # type: ignore[override]  # asks the store, once
        if self._offset is None:
            self._probe()
        return self._unconditional

    _unconditional = ""

    @_as_os_errors
    def _probe(self) -> None:
        """Ask the store for the time, and whether it minds conditions: some ignore them in silence."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        def ignores(mode: Any) -> bool:
            try:
                obstore.put(self._store, name, b"2", mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        name = f"{_PROBE}{uuid.uuid4().hex}"
        written = obstore.put(self._store, name, b"1")
        try:
            self._offset = obstore.head(self._store, name)["last_modified"].timestamp() - time.time()
            other = f"{written['e_tag']}"[:-2] + '0"'
            if ignores("create") or ignores({"e_tag": other}):
                self._unconditional = "it ignores the conditions of writes"
        except (NotSupportedError, NotImplementedError) as error:
            self._unconditional = f"it refuses conditional writes ({_first_line(error)})"
        finally:
            self.delete(name)

    def _age(self, modified: Any) -> float:
        if self._offset is None:
            try:
                self._probe()
            except Exception:  # one who may only read goes by the machine's own clock
                self._offset = 0.0
        assert self._offset is not None
        return float(time.time() + self._offset - modified.timestamp())

    @_as_os_errors
    def get(self, name: str) -> Held | None:
        import obstore

        try:
            found = obstore.get(self._store, name)
            data = bytes(found.bytes())
        except FileNotFoundError:
            return None
        return Held(data, found.meta["e_tag"], self._age(found.meta["last_modified"]))

    @_as_os_errors
    def put(self, name: str, data: bytes, expected: str | None = None) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "overwrite"
        if expected is not None:
            mode = "create" if expected == NEW else {"e_tag": expected}
        try:
            multipart = None if expected is None else False  # parts can't be put on a condition
            return str(obstore.put(self._store, name, data, mode=mode, use_multipart=multipart)["e_tag"])
        except (AlreadyExistsError, PreconditionError) as error:
            raise TakenError(name) from error

    @_as_os_errors
    def delete(self, name: str) -> None:
        import obstore

        try:
            obstore.delete(self._store, name)
        except FileNotFoundError:
            return

    @_as_os_errors
    def ages(self) -> dict[str, float | None]:
        import obstore

        found = [meta for page in obstore.list(self._store) for meta in page]
        return {meta["path"]: self._age(meta["last_modified"]) for meta in found}


class _SessionObjects(Objects):
    """By Lance itself, which reaches every store that it reads, without conditions or times."""

    def __init__(self, dataset: lance.LanceDataset, reason: str) -> None:
        self._session = dataset.new_file_session()
        self.unconditional = reason

    def get(self, name: str) -> Held | None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._session.download_file(f"{FOLDER}/{name}", f"{folder}/object")
            except OSError:
                if self._session.contains(f"{FOLDER}/{name}"):
                    raise
                return None
            return Held(Path(folder, "object").read_bytes(), None, None)

    def put(self, name: str, data: bytes, expected: str | None = None) -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "object").write_bytes(data)
            self._session.upload_file(f"{folder}/object", f"{FOLDER}/{name}")
        return None

    def delete(self, name: str) -> None:
        if self._session.contains(f"{FOLDER}/{name}"):
            self._session.delete_file(f"{FOLDER}/{name}")

    def ages(self) -> dict[str, float | None]:
        return {name.split(f"{FOLDER}/", 1)[1]: None for name in self._session.list(FOLDER)}


def objects_of(dataset: lance.LanceDataset) -> Objects:
    """The objects beside a table in an object store, by the same access to it."""
    try:
        store = _store(dataset.uri, dataset.initial_storage_options or {})
    except _Unreachable as reason:
        return _SessionObjects(dataset, str(reason))
    return _StoreObjects(store)


def objects_at(uri: str, options: Mapping[str, str] | None) -> Objects | None:
    """The objects in a database's own folder `FOLDER`; None where obstore can't reach it."""
    try:
        return _StoreObjects(_store(uri, options or {}))
    except _Unreachable:
        return None


class _Unreachable(Exception):
    """Why obstore can't be used where Lance can."""


def _store(uri: str, options: Mapping[str, str]) -> Any:
    """obstore's store of the folder `FOLDER` of a table or database. Raises _Unreachable."""
    from obstore.exceptions import BaseError, UnknownConfigurationKeyError
    from obstore.store import AzureStore, GCSStore, S3Store

    parts = urlsplit(uri)
    kinds = {"s3": S3Store, "s3+ddb": S3Store, "gs": GCSStore, "az": AzureStore}
    if parts.scheme not in kinds:
        raise _Unreachable(f"there is no way known to write conditionally to {parts.scheme}://")
    lowered = {k.lower(): v for k, v in options.items()}
    client = {k: v for k, v in lowered.items() if k in _CLIENT_OPTIONS}
    config = {k: v for k, v in lowered.items() if k not in _CLIENT_OPTIONS}
    retry = {"max_retries": int(config.pop("client_max_retries", _RETRIES))}
    more = {"client_options": client, "retry_config": retry, **_credentials(parts.scheme, config)}
    prefix = f"{unquote(parts.path).strip('/')}/{FOLDER}"

    def opened(config: dict[str, str]) -> Any:
        try:
            return kinds[parts.scheme](parts.netloc, prefix=prefix, config=config, **more)
        except UnknownConfigurationKeyError as error:  # Lance passes over those that it doesn't know
            known = {k: v for k, v in config.items() if repr(k) not in str(error)}
            if len(known) < len(config):
                return opened(known)
            raise

    try:
        return opened(config)
    except (BaseError, ValueError) as error:
        raise _Unreachable(_first_line(error)) from error


def _credentials(scheme: str, config: Mapping[str, str]) -> dict[str, Any]:
    """Of S3, keys of a profile in the user's folder, which obstore itself doesn't read."""
    given = any("access_key_id" in k or "skip_signature" in k for k in config)
    if not scheme.startswith("s3") or given or any(k in os.environ for k in _KEYS):
        return {}
    profiles = [os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config"]
    if not any(os.path.exists(os.path.expanduser(p)) for p in profiles):
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return {"credential_provider": Boto3CredentialProvider()}
    except (ImportError, ValueError) as error:
        raise _Unreachable(
            f"keys from a profile in ~/.aws need boto3 for it: pip install boto3 ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
