"""An S3-like server on this machine, and LanceDB tables in it."""

import contextlib
import logging
import os
import subprocess
import sys

import boto3
import lance
from moto.server import ThreadedMotoServer

from lance_tables import rows
from spec_store.plugins import get_connector

BUCKET = "bucket"


def _started():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return server, f"http://{host}:{port}"


class S3:
    """A server with one bucket, in this process unless there is one at the endpoint."""

    def __init__(self, endpoint=None):
        self._server = None
        if endpoint is None:
            self._server, endpoint = _started()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        self.client.create_bucket(Bucket=BUCKET)
        self.options = {**keys, "aws_region": "us-east-1", "aws_endpoint": endpoint, "allow_http": "true"}

    def stop(self):
        if self._server is not None:
            self._server.stop()

    def forget_conditions(self):
        """From now on, ignore the conditions of writes beside tables, as some stores do of all writes."""
        inner = self._server._server.app

        def application(environ, start_response):
            if "/_spec_store/" in environ["PATH_INFO"]:
                environ = {
                    k: v for k, v in environ.items() if k not in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
                }
            return inner(environ, start_response)

        self._server._server.app = application

    def make_table(self, name, *parts, table="images"):
        """A database of that name with a table; its URI."""
        uri = f"s3://{BUCKET}/{name}"
        for i, part in enumerate(parts or (rows(60), rows(40, 60))):
            mode = "append" if i else "create"
            lance.write_dataset(part, f"{uri}/{table}.lance", mode=mode, storage_options=self.options)
        return uri

    def open(self, uri, table="images"):
        return get_connector("lancedb").open(uri, table=table, options=self.options)

    def dataset(self, uri, table="images"):
        return lance.dataset(f"{uri}/{table}.lance", storage_options=self.options)

    def names(self, prefix):
        """Of all objects that begin so, without that."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {o["Key"].removeprefix(prefix) for page in pages for o in page.get("Contents", [])}

    def objects(self, uri, table="images"):
        """Names of a table's objects."""
        prefix = uri.removeprefix(f"s3://{BUCKET}/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [o["Key"] for page in pages for o in page.get("Contents", [])]
        assert all(n.startswith(("db-",)) for n in names), names
        folder = f"{prefix}/{table}.lance/"
        return {n.removeprefix(folder) for n in names if n.startswith(folder)}

    def get_object(self, uri, name, table="images"):
        """What an object of a table holds."""
        return self.client.get_object(Bucket=BUCKET, Key=self._key(uri, name, table))["Body"].read()

    def put_object(self, uri, name, data, table="images"):
        """Replace an object of a table."""
        self.client.put_object(Bucket=BUCKET, Key=self._key(uri, name, table), Body=data)

    @staticmethod
    def _key(uri, name, table):
        return f"{uri.split('/', 3)[3]}/{table}.lance/{name}"


@contextlib.contextmanager
def running():
    server = S3()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_apart():
    """A server in a process of its own: what waits for it with the interpreter locked gets its answer."""
    command = [sys.executable, __file__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield S3(process.stdout.readline().strip())
    finally:
        process.communicate("")


if __name__ == "__main__":
    served, at = _started()
    print(at, flush=True)
    sys.stdin.read()
    served.stop()
