"""The pictures of `bench.proxies`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.peers import PEERS
from bench.records import Measurement
from bench.workloads import CONNECTIONS, PIPELINES, get

_COLORS = {"redis": "#8c8c8c", "rfproxy": "#2f6db5", "twemproxy": "#d98032", "haproxy": "#4c9f70"}
_KINDS = ("GET 64 B", "SET 64 B", "GET 4 KB", "SET 4 KB")
Medians = Mapping[tuple[str, str], Measurement]
"""By workload and system."""


def bars(found: Medians, facts: Mapping[str, str], path: Path) -> None:
    """CPU time per GET of each proxy, on top of it that of Redis, with 50 connections: a panel for each pipeline."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    shown = [pipeline for pipeline in PIPELINES if any(workload == get(50, pipeline).name for workload, _ in found)]
    if not shown:
        return
    figure, axes = pyplot.subplots(1, len(shown), figsize=(3.4 * len(shown), 3.8), squeeze=False, layout="constrained")
    for panel, pipeline in zip(axes[0], shown, strict=True):
        workload = get(50, pipeline).name
        systems = [name for name in PEERS if (workload, name) in found]
        seen = [found[workload, name] for name in systems]
        proxies, colors = [one.proxy for one in seen], [_COLORS[name] for name in systems]
        panel.bar(systems, proxies, color=colors)
        tops = panel.bar(systems, [one.redis for one in seen], bottom=proxies, color=colors, alpha=0.35)
        told = [f"{one.proxy:.2f} + {one.redis:.2f}" if one.proxy else f"{one.redis:.2f}" for one in seen]
        panel.bar_label(tops, told, fontsize=7, padding=2)
        panel.set_title("one command at a time" if pipeline == 1 else f"{pipeline} commands at a time", fontsize=9)
        panel.tick_params(axis="both", labelsize=8)
        panel.margins(y=0.12)
    axes[0][0].set_ylabel("microseconds of CPU per command", fontsize=8)
    figure.suptitle(
        "CPU time of a GET of 64 bytes, 50 connections: the proxy (dark) and Redis behind it (light)", fontsize=10
    )
    _save(figure, facts, path)


def lines(found: Medians, facts: Mapping[str, str], path: Path) -> None:
    """CPU time of each proxy per command over the number of connections: a panel for each command and pipeline."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    drawn = {(kind, pipeline): _curves(found, kind, pipeline) for kind in _KINDS for pipeline in PIPELINES}
    if not any(drawn.values()):
        return
    figure, axes = pyplot.subplots(
        len(PIPELINES), len(_KINDS), figsize=(11, 7), sharex=True, squeeze=False, layout="constrained"
    )
    for row, pipeline in zip(axes, PIPELINES, strict=True):
        for panel, kind in zip(row, _KINDS, strict=True):
            for system, points in drawn[kind, pipeline].items():
                panel.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1.2, label=system, color=_COLORS[system])
            panel.set(xscale="log")
            panel.set_ylim(bottom=0)
            panel.set_xticks(CONNECTIONS, [f"{connections:,}" for connections in CONNECTIONS])
            panel.tick_params(axis="both", labelsize=8)
            panel.minorticks_off()
            panel.grid(axis="y", lw=0.3)
        row[0].set_ylabel(f"{pipeline} at a time\nus of CPU per command", fontsize=8)
    for panel, kind in zip(axes[0], _KINDS, strict=True):
        panel.set_title(kind, fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("connections", fontsize=8)
    told = {line.get_label(): line for panel in axes.flat for line in panel.get_lines()}
    figure.legend(told.values(), told.keys(), loc="outside upper right", ncols=3, fontsize=8)
    figure.suptitle("CPU time of the proxy per command", fontsize=10)
    _save(figure, facts, path)


def _curves(found: Medians, kind: str, pipeline: int) -> dict[str, list[tuple[int, float]]]:
    """Of each proxy that was measured with several numbers of connections: the number and the microseconds."""
    curves = {}
    for system in PEERS:
        keys = [(f"{kind}, {connections} conn, P={pipeline}", system) for connections in CONNECTIONS]
        points = [(c, found[key].proxy) for c, key in zip(CONNECTIONS, keys, strict=True) if key in found]
        if system != "redis" and len(points) > 1:
            curves[system] = points
    return curves


def _save(figure: Any, facts: Mapping[str, str], path: Path) -> None:
    """With the facts below the picture."""
    from matplotlib import pyplot  # noqa: PLC0415 - only whoever draws needs it

    versions = ", ".join(f"{name} {fact}" for name, fact in facts.items() if name not in {"name", "date", "machine"})
    figure.supxlabel(f"{facts['date']}, {facts['machine']}\n{versions}", fontsize=7, color="#555555")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
