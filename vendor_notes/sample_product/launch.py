"""Where a packager starts: the window, or one of the two things that a frozen Studio does without one."""

import json
import sys

if sys.argv[1:] == ["--deliver"]:  # a `detached_command`; before anything else is loaded
    from studio._vendor import telemetry

    sys.exit(telemetry.deliver_detached())

from studio import calling_home

if sys.argv[1:] == ["--self-check"]:
    print(json.dumps(calling_home.self_check(), indent=2))
    sys.exit()

from studio.window import Window

Window().mainloop()
