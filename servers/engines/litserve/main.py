"""The process that serves one LitAPI: `python -m servers.engines.litserve.main SPEC.json`.

It loads the LitAPI, so that a plug-in's code runs here and not in Litport's own process. The worker host serves it;
LitServe's own server does where the host cannot, or where the settings say so. A mistake is one line on stderr and exit
status 3.
"""

import json
import sys
import traceback
from pathlib import Path

from configs.errors import UserError
from servers.engines.litserve.api import ApiSpec, construct_api, fail, first_paragraph


def main(spec_file: str) -> int:
    """Serve until SIGTERM; returns the exit status."""
    spec = ApiSpec(**json.loads(Path(spec_file).read_text()))
    try:
        return _serve(spec)
    except UserError as error:
        return fail(str(error))
    except Exception as error:  # whatever a plug-in's module or constructor raises
        traceback.print_exc()
        return fail(f"api {spec.api!r}: {type(error).__name__}: {first_paragraph(error)}")


def _serve(spec: ApiSpec) -> int:
    # Each way imports what the other does not need.
    if spec.serving == "litserve":
        from servers.engines.litserve import fallback

        return fallback.serve(construct_api(spec), spec)
    from servers.engines.litserve.host import load
    from servers.engines.litserve.host import main as host

    api = construct_api(spec)
    reason = load.unsupported(api)
    if reason is None:
        return host.serve(load.prepare(api, spec), spec)
    if spec.serving == "host":
        raise UserError(f"api {spec.api!r}: the worker host cannot run it: {reason}; remove `serving: host`")
    from servers.engines.litserve import fallback

    return fallback.serve(api, spec, reason)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
