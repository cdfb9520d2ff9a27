"""The command line: `python -m server --config FILE [COMMAND]`."""

from server.cli import main

main()
