"""The figures of tests/bench.py for people: a table with bars for each, and one in Markdown of all of them.

A ratio says how many times as good a server is as asyncio's Protocol as people write it: over 1 is better, also where
less is better, as with seconds.
"""
from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import NamedTuple

BASE = 'protocol'  # asyncio's Protocol, as people write it
BAR = 30  # columns
LABELS = {'full': 'imserver --durability full', 'normal': 'imserver --durability normal',
          'off': 'imserver --durability off', 'reactor': 'our reactor and codec, no store',
          'tuned': 'asyncio Protocol, our codec+flush', 'protocol': 'asyncio Protocol', 'streams': 'asyncio streams',
          'uvloop': 'uvloop Protocol'}
Rounds = dict[str, list[float]]  # figure -> its value in each round
Results = dict[str, dict[str, Rounds]]  # workload -> server


class Figure(NamedTuple):
    """One of the figures of a workload, and how it is shown."""
    key: str
    unit: str
    form: str = '{:,.0f}'
    is_less_better: bool = False
    has_ratio: bool = True  # to BASE; without, the table in Markdown shows the figure itself
    title: str = ''  # where a workload has several


class Shown(NamedTuple):
    """What one table is made of."""
    title: str
    figure: Figure
    medians: dict[str, float]  # by server

    def text(self, name: str) -> str:
        return self.figure.form.format(self.medians[name])

    @property
    def has_ratio(self) -> bool:
        return self.figure.has_ratio and all(self.medians.values()) and BASE in self.medians

    def ratio(self, name: str) -> str:
        if not self.has_ratio:
            return ''
        ratio = self.medians[name] / self.medians[BASE]
        return f'{1 / ratio if self.figure.is_less_better else ratio:.2f}'


def machine() -> dict[str, str | int]:
    """What the figures were measured with."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return {'python': f'{platform.python_implementation()} {platform.python_version()}',
            'system': f'{platform.system()} {platform.release()} {platform.machine()}',
            'cores': os.cpu_count() or 1, 'cpu': models[0] if models else platform.processor()}


def shown(figures_of: dict[str, tuple[Figure, ...]], results: Results) -> list[Shown]:
    """Return what is to be shown: the medians of those figures that were found."""
    found = []
    for workload, by_server in results.items():
        for figure in figures_of[workload]:
            medians = {name: statistics.median(values) for name in LABELS
                       if (values := by_server.get(name, {}).get(figure.key))}
            if medians:
                found.append(Shown(f'{workload}{figure.title and ": "}{figure.title}', figure, medians))
    return found


def table(one: Shown) -> str:
    figure, most = one.figure, max(one.medians.values())
    lines = [f'{one.title} ({figure.unit}{", less is better" if figure.is_less_better else ""})']
    for name, value in one.medians.items():
        bar = '#' * round(BAR * value / most) if most else ''
        lines.append(f'  {LABELS[name]:<34} {one.text(name):>11}  {one.ratio(name):5}  {bar}')
    return '\n'.join(lines)


def summary(found: list[Shown]) -> str:
    """Return one table in Markdown: of each figure the ratios, or itself where ratios mean nothing.  What stands
    beside ours is always in it: asyncio with our codec and flush too."""
    columns = [name for name in LABELS if name == 'tuned' or any(name in one.medians for one in found)]
    lines = ['| workload | ' + ' | '.join(f'`{name}`' for name in columns) + ' |', '| --- |' + ' ---: |' * len(columns)]
    for one in found:
        unit = '' if one.has_ratio else f' ({one.figure.unit})'
        cells = [cell_of(one, name) if name in one.medians else '' for name in columns]
        lines.append(f'| {one.title}{unit} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def cell_of(one: Shown, name: str) -> str:
    return one.ratio(name) if one.has_ratio else one.text(name)


def caption(about: dict[str, str | int], rounds: int) -> str:
    return (f'{about["python"]}, {about["system"]}, {about["cores"]} cores, {about["cpu"]}; medians of {rounds} '
            f'round{"s" * (rounds != 1)} (backlog: at most 3; crowd and growth: 1). How many times as good as '
            f'`{BASE}`, asyncio Protocol as people write it, which keeps nothing: over 1 is better, also where less is '
            'better. Figures with a unit are no ratios.')


def show(figures_of: dict[str, tuple[Figure, ...]], results: Results, rounds: int) -> None:
    found = shown(figures_of, results)
    for one in found:
        print(table(one), end='\n\n')
    print(summary(found), caption(machine(), rounds), sep='\n\n')
