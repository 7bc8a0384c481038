"""How fast the server is, against others that speak the same protocol, in one run: `python3 tests/bench.py`.

    python3 tests/bench.py                 everything: 5 rounds, some 10 minutes
    python3 tests/bench.py --quick         a minute or two: fewer rounds, shorter, small groups
    python3 tests/bench.py --json          the figures for a program to read
    python3 tests/bench.py --only pairs    workloads whose name begins so

What it does: starts each server on a core of its own, warms it up, has bench_load.py (on another core) put the same
load on all of them in turn, round after round, and prints medians and their ratios to asyncio's Protocol as people
write it.  That one and the other peers keep nothing; ours in three durabilities keeps everything.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
OURS = ('full', 'normal', 'off')
PEERS = ('streams', 'protocol', 'tuned', 'reactor')
BASE = 'protocol'  # asyncio's Protocol, as people write it
RECONNECTS = 1_000  # users with a token
BAR = 30  # columns
LABELS = {'full': 'imserver --durability full', 'normal': 'imserver --durability normal',
          'off': 'imserver --durability off', 'reactor': 'our reactor and codec, no store',
          'streams': 'asyncio streams', 'protocol': 'asyncio Protocol', 'uvloop': 'uvloop Protocol',
          'tuned': 'asyncio Protocol, our codec+flush'}
UNITS = {'per_second': 'a second', 'p50_ms': 'ms', 'seconds': 'seconds'}


class Workload(NamedTuple):
    name: str
    figure: str  # which of its figures is compared
    order: dict[str, Any]  # for bench_load.py
    needs_store: bool = False  # then only our servers can do it


def workloads(is_quick: bool) -> list[Workload]:
    seconds = 0.6 if is_quick else 2.0
    def timed(name: str, workload: str, **more: Any) -> Workload:
        return Workload(name, 'per_second', {'workload': workload, 'seconds': seconds, **more})
    found = [timed('pairs, 1 in flight', 'pairs', count=32, window=1),
             timed('pairs, 32 in flight', 'pairs', count=32, window=32),
             timed('group of 100, 8 in flight', 'group', members=100, window=8),
             timed('logins', 'logins', at_once=32),
             Workload('1,000 reconnects at once', 'seconds', {'workload': 'reconnects'}),
             Workload('latency of one pair', 'p50_ms', {'workload': 'latency', 'seconds': seconds}),
             Workload('backlog drained by one login', 'per_second',
                      {'workload': 'backlog', 'count': 10_000 if is_quick else 100_000}, needs_store=True)]
    if not is_quick:
        found.insert(3, timed('group of 1,000, 8 in flight', 'group', members=1_000, window=8))
    return found


class Server:
    """One that is measured: its process, on the first core."""

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        if name in OURS:
            command = [str(ROOT / 'imserver.py'), '--port', '0', '--db', f'{folder}/{name}.db', '--durability', name,
                       '--password-cost', '10', '--log-level', 'error', '--max-group', '2000']
        else:
            command = [str(TESTS / 'bench_peers.py'), name]
        self.process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, encoding='utf-8')
        pin(self.process.pid, first=True)
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f'{name} did not start')
        host, _, port = line.split()[-1].rpartition(':')
        self.address = (host, int(port))
        self.tokens: list[str] = []

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


class Load:
    """The process that bench_load.py is, on the other cores."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(TESTS / 'bench_load.py')], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, encoding='utf-8')
        pin(self.process.pid, first=False)

    def run(self, server: Server, **order: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({'address': server.address, **order}) + '\n')
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f'the load on {server.name} failed: {order}')
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def pin(pid: int, first: bool) -> None:
    """Give the server one core and the load the others, where the system can."""
    if hasattr(os, 'sched_setaffinity') and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(pid, cores[:1] if first else cores[1:])


def warm_up(load: Load, server: Server, seconds: float) -> None:
    """Connections come and go, messages pass: a fresh asyncio process is 2 to 3 times slower until they have."""
    for prefix in 'wxyz':
        load.run(server, workload='pairs', seconds=seconds, count=32, window=4, prefix=prefix)
    server.tokens = load.run(server, workload='tokens', count=RECONNECTS)['tokens']


def measure(servers: list[Server], load: Load, chosen: list[Workload], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return workload -> server -> a figure a round; the servers take turns."""
    figures: dict[str, dict[str, list[float]]] = {
        w.name: {s.name: [] for s in servers if s.name in OURS or not w.needs_store} for w in chosen}
    for number in range(rounds):
        for workload in chosen:
            for server in servers:
                if server.name in figures[workload.name]:
                    more = {'tokens': server.tokens} if workload.order['workload'] in ('logins', 'reconnects') else {}
                    found = load.run(server, **workload.order, **more)
                    figures[workload.name][server.name].append(found[workload.figure])
        print(f'round {number + 1} of {rounds}', file=sys.stderr, flush=True)
    return figures


def show(chosen: list[Workload], figures: dict[str, dict[str, list[float]]]) -> None:
    print(f'{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}, '
          f'{os.cpu_count()} cores; medians; ratios to asyncio Protocol as people write it (which keeps nothing)')
    for workload in chosen:
        print(f'\n{workload.name} ({UNITS[workload.figure]})')
        medians = {name: statistics.median(values) for name, values in figures[workload.name].items()}
        for name, value in medians.items():
            bar = '#' * round(BAR * value / max(medians.values()))
            text = f'{value:,.0f}' if workload.figure == 'per_second' else f'{value:.3f}'
            ratio = f'{value / medians[BASE]:5.2f}' if BASE in medians else ''
            print(f'  {LABELS[name]:<34} {text:>11}  {ratio:5}  {bar}')


def main() -> None:
    parser = argparse.ArgumentParser(description='how fast the server is, against others')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--only', default='', help='workloads whose name begins so')
    parser.add_argument('--servers', nargs='+', choices=LABELS, metavar='NAME', help=', '.join(LABELS))
    options = parser.parse_args()
    chosen = [w for w in workloads(options.quick) if w.name.startswith(options.only)]
    names = options.servers or [*OURS, *PEERS, *(['uvloop'] if find_spec('uvloop') else [])]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        load, servers = stack.enter_context(closing(Load())), []
        for name in names:
            servers.append(stack.enter_context(closing(Server(name, folder))))
            warm_up(load, servers[-1], 0.2 if options.quick else 0.5)
        figures = measure(servers, load, chosen, 2 if options.quick else options.rounds)
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        show(chosen, figures)


if __name__ == '__main__':
    main()
