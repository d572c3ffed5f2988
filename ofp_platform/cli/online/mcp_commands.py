"""`ofp mcp`: the plane for programs that speak the Model Context Protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.installation.local_principals import DECISIONS, local_token
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.refusals import CommandRefused, words_for

app = typer.Typer(help="Read-only tools for programs that speak the Model Context Protocol.", no_args_is_help=True)
_INSTRUCTIONS = (
    "A feature plane for fraud decisions. All tools only read, with the rights of the key that the server was started with."
    " Values are exact; decimals are texts. Every snapshot is named by its hash."
)


@app.callback()
def group() -> None:
    """Read-only tools for programs that speak the Model Context Protocol."""


@app.command(short_help="Serve the tools over stdin and stdout.")
def serve(
    url: Annotated[str, typer.Option("--url", help="Service to ask.")] = "http://127.0.0.1:8000",
    token: Annotated[str | None, typer.Option("--token", envvar="OFP_API_TOKEN", help="Bearer token of the service.")] = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Serve read-only tools until stdin ends: health, catalogue, decisions, snapshots, explanations down to the events, packs
    compared, builds estimated.

    Everything is asked of the service with the given key, so nothing is told that the key may not read. Needs the extra `mcp`.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError:
        raise CommandRefused("the MCP SDK is not installed: pip install 'ofp-platform[mcp]'") from None

    from ofp_platform.cli.online.plane_tools import PlaneTools
    from ofp_platform.client import OfpClient

    key = token or local_token(resolve(home, profile), DECISIONS, url)
    with OfpClient(url, token=key, timeout_seconds=30) as client:
        server = MCPServer("ofp", instructions=_INSTRUCTIONS, log_level="WARNING")
        for tool in PlaneTools(client).tools:
            annotations = ToolAnnotations(
                read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
            )
            server.add_tool(_in_words(tool, url), name=tool.__name__, annotations=annotations)
        server.run("stdio")


def _in_words(tool: Callable[..., dict[str, Any]], url: str) -> Callable[..., dict[str, Any]]:
    """The tool, whose expected errors are told as a command tells them."""
    from mcp.server.mcpserver.exceptions import ToolError

    from ofp_platform.client import ServiceUnreachable
    from ofp_platform.vocabulary.errors import ContractError

    @wraps(tool)
    def tool_in_words(*arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return tool(*arguments, **options)
        except ServiceUnreachable as error:
            raise ToolError(f"{url} does not answer ({error}): start it with `ofp serve`, or name another with --url") from None
        except ContractError as error:  # as `words_for`, without what it imports
            raise ToolError(f"{error.code.value} / {error.reason.value}: {error.message}") from None
        except Exception as error:
            words = str(error) if isinstance(error, ValueError) else words_for(error)
            raise ToolError(words or f"the tool failed: {type(error).__name__}") from None

    return tool_in_words
