"""Cost of measuring savings, over HTTP and in a closed loop: our server with a holdout, its state
file, predictions and the request log is compared with the same server without them.

Both are up at once and idle in turn; runs alternate. The client is vLLM's serving benchmark. The
policy is a budget that is never spent, so all answers are equally long and every one is recorded.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from benchmarks.serving.serving import METRICS, Bench, Size, Way, warm_up
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import compare, made
from tests.support.servers import CALIBRATED, OURS, Server, start, stop, wait_up

WAYS = {"plain": Way("plain"), "accounted": Way("accounted")}
TOKENS = 128


def main() -> None:
    """Measure, print a table, and write all figures to outputs/bench/accounting.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=22, help="pairs of runs (%(default)s)")
    parser.add_argument("--requests", type=int, default=192, help="of a run (%(default)s)")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(_servers(folder))
        bar = stack.enter_context(tqdm(total=2 * args.rounds, unit="run", smoothing=0))
        bench = Bench(servers, folder, Size(), {"made": made()}, bar, "accounting")
        warm_up(bench)
        traffics = bench.traffics(
            args.rounds, args.requests, tokens=TOKENS, fixed=True, concurrency=16
        )
        setting = f"{args.requests} requests of {TOKENS} tokens each, 16 at once"
        rounds = bench.rounds("accounting", WAYS, traffics, setting)
    print(f"\n{setting}, {args.rounds} rounds")
    print(compare(rounds, METRICS, title="accounting", ours="accounted", peer="plain"))
    print(bench.keep())


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, Server]]:
    common = ("--max-num-seqs", "1024", "--exit-policy", "budget", "--exit-budget-tokens", "9999")
    accounts = ("--exit-holdout", "0.05", "--exit-state", str(folder / "state.sqlite"))
    log = ("--exit-log", str(folder / "requests.jsonl"))
    with contextlib.ExitStack() as stack:
        found = {}
        for name, flags in {"plain": (), "accounted": (*accounts, *log, *CALIBRATED)}.items():
            found[name] = start(OURS, folder / f"{name}.log", *common, *flags)
            stack.callback(stop, found[name])
        for server in found.values():
            wait_up(server)
        yield found


if __name__ == "__main__":
    main()
