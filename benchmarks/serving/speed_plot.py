"""Plot of throughput and latency by concurrency."""

from pathlib import Path

from benchmarks.serving.speed_report import SERVED, Found, levels
from training.files import replacing

__all__ = ["draw"]


def draw(found: Found, path: Path) -> None:
    """Plot requests per second and median latency by concurrency."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and the page does not need it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 4), layout="constrained")
        panels = zip(figure.subplots(1, 2), ("requests per second", "answer, p50 ms"), strict=True)
        for axes, name in panels:
            places = [level for level, _ in levels(found)]
            lines = {
                "stock": [ways["none"][name]["peer"] for _, ways in levels(found)],
                "none": [ways["none"][name]["ours"] for _, ways in levels(found)],
                "confidence": [ways["confidence"][name]["ours"] for _, ways in levels(found)],
            }
            for title, values in lines.items():
                axes.plot(places, values, marker="o", label=title)
            axes.set(xscale="log", yscale="log", xlabel="requests at once", ylabel=SERVED[name])
            axes.grid(alpha=0.3)
            axes.legend()
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})
