"""Dagster's web server behind the guard, as a program: `python -m ofp_platform.orchestration.guarded_webserver`.

One process and one port: a server of its own behind a proxy would be reached past it, from every page of the same browser.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import metadata

import dagster as dg
import uvicorn
from dagster_webserver.app import create_app_from_workspace_process_context

from ofp_platform.api.request_head import OwnHosts
from ofp_platform.orchestration.dagster_internals import ModuleTarget, WorkspaceProcessContext
from ofp_platform.orchestration.partition_bounds import PartitionBounds
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.orchestration.webserver_guard import Guard

SESSION_VARIABLE = "OFP_DAGSTER_SESSION"
_LEAST_SESSION = 32
_DEFINITIONS = "ofp_platform.definitions"


def main(arguments: list[str]) -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="guarded_webserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--launch", action="store_true", help="let the pages launch runs and change things")
    parser.add_argument("--allow-host", action="append", default=[], help="another name that requests may carry as Host")
    options = parser.parse_args(arguments)
    session = os.environ.pop(SESSION_VARIABLE, "")  # runs that are launched here must not inherit it
    if len(session) < _LEAST_SESSION:
        raise SystemExit(f"{SESSION_VARIABLE} is the secret of the session, of at least {_LEAST_SESSION} characters")
    version = metadata.version("dagster-webserver")
    target = ModuleTarget(_DEFINITIONS, attribute=None, working_directory=os.getcwd(), location_name=None)
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target, version=version, read_only=not options.launch) as context,
    ):
        application = create_app_from_workspace_process_context(context)
        hosts = OwnHosts([options.host, *options.allow_host])
        bounds = PartitionBounds.of(PlaneResource().load_profile())
        guard = Guard(application, session, may_launch=options.launch, hosts=hosts, launch_refusal=bounds.refusal)
        # no access log: the address that opens a session would stand in it
        # and no frame: pages of another port of this machine are of the same site, and send the cookie
        headers = [("x-frame-options", "DENY")]
        uvicorn.run(
            guard,
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            headers=headers,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
