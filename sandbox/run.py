"""`make run`: a local deployment, with the next two lines to try."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from synposter_accounts import Accounts

from sandbox.local import Local, StartFailed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.run", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".local"), help="where everything lives (default: .local)")
    local = Local(parser.parse_args().folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt), local:
            print(hints(local), flush=True)
            local.wait()
    except (StartFailed, OSError) as failed:
        sys.exit(f"error: {failed}")


def hints(local: Local) -> str:
    """Two lines that work as they stand."""
    lines = [
        "",
        f"The service is up: gRPC on {local.target}, the callback on {local.public_url}.",
        f"Its files are in {local.folder}; the API key of the caller `local` is in {local.folder / 'api-key'}",
        "",
        "Ask it something:",
        f'  .venv/bin/grpcurl -plaintext -H "authorization: Bearer $(cat {local.folder / "api-key"})" '
        f'-d \'{{"profile_id": "demo"}}\' {local.target} synposter.accounts.v1.AccountService/ListAccounts',
    ]
    if local.sandbox_url is not None:
        with Accounts(local.target, local.api_key) as accounts:
            url = accounts.begin_connect("demo", "twitter").authorization_url
        lines += ["", "Connect an account: open this in a browser within ten minutes, then ask again:", f"  {url}"]
    return "\n".join([*lines, "", "Ctrl-C stops it.", ""])


if __name__ == "__main__":
    main()
