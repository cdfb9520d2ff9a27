"""`python -m sandbox`: a pretend X on this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click
import uvloop

from sandbox.ledger import App, Ledger
from sandbox.server import NotLoopback, running


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--listen", default="127.0.0.1:8081", show_default=True, help="Loopback address and port.")
@click.option(
    "--client-id", default="sandbox-client", show_default=True, help="The app that is registered at the start."
)
@click.option("--client-secret-file", type=click.Path(path_type=Path, exists=True), help="File with the app's secret.")
@click.option("--redirect-uri", multiple=True, help="A redirect URI of the app, exact; may be repeated.")
@click.option("--access-token-seconds", type=int, default=7200, show_default=True, help="Life of an access token.")
def main(
    listen: str,
    client_id: str,
    client_secret_file: Path | None,
    redirect_uri: tuple[str, ...],
    access_token_seconds: int,
) -> None:
    """A pretend X for development and tests. It serves loopback only, and every page says that it is a sandbox."""
    if redirect_uri and client_secret_file is None:
        raise click.UsageError("--redirect-uri registers an app only together with --client-secret-file")
    ledger = Ledger()
    ledger.settings.access_token_seconds = access_token_seconds
    if client_secret_file is not None:
        ledger.apps[client_id] = App(client_id, client_secret_file.read_text().strip(), list(redirect_uri))
    try:
        uvloop.run(serve(*address(listen), ledger))
    except (NotLoopback, OSError) as error:
        sys.exit(f"error: {error}")


def address(listen: str) -> tuple[str, int]:
    """Host and port. Raises click.BadParameter."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"{listen!r} is not host:port, such as 127.0.0.1:8081", param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def serve(host: str, port: int, ledger: Ledger) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(host, port, ledger) as sandbox:
        print(f"sandbox ready on {sandbox.url}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
