"""The command line: `python -m server --config FILE [COMMAND]`."""

import gc

gc.disable()  # modules are made to stay: looking for garbage among them takes a sixth of the start (measured)
try:
    from server.commands.main import main
except KeyboardInterrupt:
    # Ctrl-C in the second that it takes to read the modules: nothing has begun, and click is not there yet to tell.
    raise SystemExit(130) from None
gc.enable()

main()
