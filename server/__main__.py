"""The command line: `python -m server --config FILE [COMMAND]`."""

from server.commands.main import main

main()
