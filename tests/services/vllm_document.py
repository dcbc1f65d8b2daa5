"""vLLM's own OpenAPI document for a model of these tasks, from its application without an engine behind it.

python -m tests.services.vllm_document generate transcription
"""

import json
import sys

from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "none"])
    app = build_app(arguments, tuple(sys.argv[1:]), None)
    json.dump(app.openapi(), sys.stdout)
