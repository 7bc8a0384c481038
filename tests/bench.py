"""How fast the server is, against others that speak the same protocol, in one run: `python3 tests/bench.py`.

    python3 tests/bench.py                 everything: 5 rounds, some 8 minutes
    python3 tests/bench.py --quick         everything but the group of 1,000, smaller and once: under a minute
    python3 tests/bench.py --json          all figures of all rounds, for a program to read
    python3 tests/bench.py --only pairs    workloads whose name begins so; several may be given
    python3 tests/bench.py --servers full protocol

What it does: starts each server on a core of its own, warms it up, has bench_load.py (on another core) put the same
load on all of them in turn, round after round, and prints medians and their ratios to asyncio's Protocol as people
write it.  That one and the other peers keep nothing; ours in three durabilities keeps everything.  What takes a
thousand idle connections or a long log is measured once, with a server that has seen nothing else: its memory would
not tell.  The databases are where temporary files are (TMPDIR): on a disk, if `full` is to mean anything.
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS)]

import imserver  # noqa: E402
from bench_load import PASSWORD, Figures, User  # noqa: E402
from bench_show import LABELS, Figure, Results, machine, show  # noqa: E402
from store import MESSAGE, Entry, Store, direct_stream, hash_password, name_key  # noqa: E402

try:
    import resource
except ImportError:  # Windows
    resource = None

OURS = ('full', 'normal', 'off')
COST = 10  # of a password: the least
OPTIONS = {'idle': 3600, 'max_group': 2000, 'max_connections': 20_000, 'max_unauthenticated': 20_000, 'rate': 0}
PASSWORD_HASH = hash_password(PASSWORD, COST)
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else list(range(os.cpu_count() or 1))
WARM_UPS = 4  # workloads before the first that counts
WRITERS, BURST, TRANSACTION = 1_000, 8, 1_000  # who write a log; messages in a row from one to one; in a commit
LOG_USERS, LOG_WARM_UPS, LOG_WAITING = 50, 20, 10  # who log in, who do so before, messages that wait for each
DISTURBED = 0.05  # of a run: so much of its core others may take before we say so
STOPS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]
WAIT = 10.0  # seconds for a process to end when it is asked to


# What is measured ....................................................................................

class Workload(NamedTuple):
    name: str
    figures: tuple[Figure, ...]  # those of its figures that are shown
    order: dict[str, Any]  # for bench_load.py
    users: int = 0  # that it needs for itself
    tokens: int = 0  # users with a token, that it may share with others
    servers: tuple[str, ...] = tuple(LABELS)
    rounds: int = 99  # at most
    is_alone: bool = False  # measured once, each server started for it
    logs: tuple[int, ...] = ()  # messages in the log: the workload is run on each, and the first and last are compared


PER_SECOND = Figure('per_second', 'messages a second')
CROWD = (Figure('bytes', 'bytes of the server a connection', is_less_better=True, title='memory'),
         Figure('cpu_percent', '% of a core', '{:.1f}', is_less_better=True, title='heartbeats'),
         Figure('kept_percent', '% of the messages a second without it', '{:.0f}', has_ratio=False,
                title='16 pairs beside it'))


def workloads(is_quick: bool) -> list[Workload]:
    seconds = 0.3 if is_quick else 1.0
    return [*small_workloads(seconds, 10_000 if is_quick else 100_000, (100,) if is_quick else (100, 1_000)),
            crowd(2_000, 0.3, 1, 1.2) if is_quick else crowd(10_000, 0.8, 3, 6.0),
            connections((200, 1_000, 2_000), 0.2, 1) if is_quick else connections((1_000, 4_000, 10_000), 1.0, 3),
            growing_log(1_000, 100_000 if is_quick else 1_000_000)]


def small_workloads(seconds: float, backlog: int, groups: tuple[int, ...]) -> list[Workload]:
    timed, briefly = {'seconds': seconds}, {'seconds': 0.7 * seconds}
    return [
        *[Workload(f'pairs, {window} in flight', (PER_SECOND,), {'workload': 'pairs', 'window': window, **timed}, 64)
          for window in (1, 32)],
        *[Workload(f'group of {members:,}, 8 in flight', (PER_SECOND,), {'workload': 'group', 'window': 8, **timed},
                   members) for members in groups],
        Workload('logins', (Figure('per_second', 'logins a second'),), {'workload': 'logins', **briefly},
                 tokens=200),
        Workload('1,000 reconnects at once', (Figure('seconds', 'seconds', '{:.3f}', is_less_better=True),),
                 {'workload': 'reconnects'}, tokens=1_000),
        Workload('latency of one pair', (Figure('p50_ms', 'ms', '{:.3f}', is_less_better=True),),
                 {'workload': 'latency', **briefly}, 2),
        Workload('backlog drained by one login', (PER_SECOND,), {'workload': 'backlog', 'count': backlog}, 2,
                 servers=('full', 'off'), rounds=3)]


def crowd(size: int, seconds: float, repeats: int, alone: float) -> Workload:
    return Workload(f'crowd of {size:,} idle sessions', CROWD,
                    {'workload': 'crowd', 'window': 32, 'seconds': seconds, 'repeats': repeats, 'alone': alone}, 32,
                    size, ('full', 'off', 'reactor', 'protocol', 'streams'), rounds=1, is_alone=True)


def connections(sizes: tuple[int, ...], seconds: float, repeats: int) -> Workload:
    figures = [PER_SECOND._replace(key=f'at_{size}', title=f'32 pairs among {size:,}') for size in sizes]
    kept = Figure('kept', 'share', '{:.2f}', has_ratio=False, title='lowest / highest')
    return Workload('growth in connections', (*figures, kept),
                    {'workload': 'connections', 'window': 8, 'seconds': seconds, 'sizes': sizes, 'repeats': repeats},
                    64, sizes[-1], ('full', 'reactor', 'protocol'), rounds=1, is_alone=True)


def growing_log(*sizes: int) -> Workload:
    figures = [Figure(f'ms_of_{size}', 'ms', '{:.2f}', is_less_better=True, title=f'login with {size:,} messages')
               for size in sizes]
    times = Figure('times', 'times as long', '{:.2f}', is_less_better=True, title='last / first')
    return Workload('growth of the log', (*figures, times),
                    {'workload': 'waiting', 'count': LOG_WAITING, 'unmeasured': LOG_WARM_UPS}, servers=('full',),
                    rounds=1, is_alone=True, logs=sizes)


# Databases made beforehand ...........................................................................

def names_of(number: int, turn: int, count: int) -> list[str]:
    """Return the users of a workload (0: to warm up) in a round.  Each run has its own: what one left behind, if it
    failed, would disturb the next.  All are of one length, so frames are of one size."""
    return [f'u{number:02}-{turn:02}-{i:04}' for i in range(count)]


class Accounts:
    """A database with all users, of which each of our servers gets a copy: no run pays for a registration."""

    def __init__(self, path: Path, chosen: list[Workload], rounds: int) -> None:
        self.path = path
        names = [name for turn in range(WARM_UPS) for name in names_of(0, turn, 64)]
        for number, workload in enumerate(chosen, 1):
            for turn in range(min(rounds, workload.rounds)):
                names += names_of(number, turn, workload.users)
        with closing(Store(str(path), 'off')) as store:
            add_users(store, names)
            self.users = add_users(store, [f't{i:05}' for i in range(max(w.tokens for w in chosen))], True)
            commit(store)


def add_users(store: Store, names: list[str], with_token: bool = False) -> list[User]:
    """Add users, all with the one password, and return those that have a token with it."""
    for name in names:
        store.add_user(name, name_key(name), PASSWORD_HASH)
    return [(name, store.new_token(name, time.time())) for name in names if with_token]


def commit(store: Store) -> None:
    outcome: list[bool] = []
    store.after_commit(outcome.append)
    store.commit()
    if not outcome[0]:
        raise SystemExit('a database could not be written')


def make_log(path: Path, size: int) -> list[User]:
    """Make a log of so many messages and return users for whom some of them wait, evenly spread over all of it."""
    readers = [f'r{i:04}' for i in range(LOG_USERS + LOG_WARM_UPS)]
    with closing(Store(str(path), 'off')) as store:
        add_users(store, [f'w{i:04}' for i in range(WRITERS)])
        users = add_users(store, readers, with_token=True)
        numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        for index, (sender, recipient) in enumerate(writers_of(size, readers), 1):
            store.append(Entry(MESSAGE, direct_stream(sender, recipient), sender, f'message {index:7} of this log',
                               next(numbers[sender]), int(time.time() * 1000)), lambda is_durable: None)
            if index % TRANSACTION == 0:
                commit(store)
        commit(store)
    return users


def writers_of(size: int, readers: list[str]) -> Iterator[tuple[str, str]]:
    """Yield who writes to whom: to each reader five friends now and then, and all around it others in bursts."""
    waiting = LOG_WAITING * len(readers)
    for index in range(size):
        nth = index * waiting // size
        if nth != (index + 1) * waiting // size:
            who, time_of_it = nth % len(readers), nth // len(readers)
            yield f'w{(who + time_of_it % 5 * 100) % WRITERS:04}', readers[who]
        else:
            burst = index // BURST
            yield f'w{burst % WRITERS:04}', f'w{(burst + 1 + burst // WRITERS % 10) % WRITERS:04}'


# Processes ...........................................................................................

class Process:
    """One that we start, on the first core or on the others; it is ended by `close`, and not by a Ctrl-C of its own."""

    def __init__(self, *command: str, is_first: bool) -> None:
        self.process = subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        encoding='utf-8', start_new_session=True)
        with contextlib.suppress(OSError):  # ended already: that will show
            pin(self.process.pid, is_first)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError), self.process:  # which closes the pipes
            self.process.terminate()
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()


def pin(pid: int, is_first: bool) -> None:
    """Give the server one core and the load the others, where the system can."""
    if hasattr(os, 'sched_setaffinity') and len(CORES) > 1:
        os.sched_setaffinity(pid, CORES[:1] if is_first else CORES[1:])


def waited(pid: int) -> float:
    """Return for how many seconds the process could have run, and did not get its core; 0 if that is not known."""
    try:
        return int(Path(f'/proc/{pid}/schedstat').read_text(encoding='utf-8').split()[1]) / 1e9
    except OSError:
        return 0.0


class Server(Process):
    """One that is measured."""

    def __init__(self, name: str, database: Path | None) -> None:
        self.name = name
        if name in OURS:
            known = vars(imserver.make_parser().parse_args([]))
            options = [f'--{option.replace("_", "-")}={value}' for option, value in OPTIONS.items() if option in known]
            command = [str(ROOT / 'imserver.py'), '--port=0', f'--db={database}', f'--durability={name}',
                       f'--password-cost={COST}', '--log-level=error', *options]
        else:
            command = [str(TESTS / 'bench_peers.py'), name]
        super().__init__(*command, is_first=True)
        with ExitStack() as stack:
            stack.callback(self.close)
            if not (line := self.process.stdout.readline()):
                raise SystemExit(f'{name} did not start')
            stack.pop_all()
        host, _, port = line.split()[-1].rpartition(':')
        self.address = (host, int(port))


class Load(Process):
    """The process that bench_load.py is."""

    def __init__(self) -> None:
        super().__init__(str(TESTS / 'bench_load.py'), 'own' if len(CORES) > 1 else 'shared', is_first=False)

    def run(self, server: Server, **order: Any) -> Figures:
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps({'address': server.address, 'pid': server.process.pid, **order}) + '\n')
            self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the load has ended"}')
        if 'error' in answer:
            raise SystemExit(f'{order["workload"]} on {server.name}: {answer["error"]}')
        return answer


# The run .............................................................................................

class Bench:
    """What all runs share: the load, the accounts, and what was found."""

    def __init__(self, folder: Path, load: Load, chosen: list[Workload], names: list[str], is_quick: bool) -> None:
        self.folder, self.load, self.chosen, self.names = folder, load, chosen, names
        self.warm_up_seconds = 0.1 if is_quick else 0.4
        self.began, self.databases = time.monotonic(), itertools.count()
        self.runs, self.disturbed = 0, list[str]()  # those during which others took the server's core
        self.results: Results = {w.name: {name: defaultdict(list) for name in names if name in w.servers}
                                 for w in chosen}

    def run(self, rounds: int) -> None:
        self.accounts = Accounts(self.folder / 'accounts.db', self.chosen, rounds)
        together = [w for w in self.chosen if not w.is_alone]
        with ExitStack() as stack:
            servers = [stack.enter_context(closing(self.started(name))) for name in self.names
                       if any(name in self.results[w.name] for w in together)]
            for turn in range(rounds):
                for workload in together:
                    if turn < workload.rounds:
                        self.measure(workload, servers, turn)
        for workload in self.chosen:
            for name in self.results[workload.name]:
                if workload.is_alone:
                    self.measure_alone(workload, name)

    def progress(self, text: str) -> None:
        print(f'{time.monotonic() - self.began:5.0f} s  {text}', file=sys.stderr, flush=True)

    def started(self, name: str) -> Server:
        """Return a warm server: a fresh asyncio process is 2 to 3 times slower until connections have come and gone."""
        self.progress(f'starting {name}')
        server = Server(name, self.copy_of_accounts() if name in OURS else None)
        with ExitStack() as stack:
            stack.callback(server.close)
            for turn in range(WARM_UPS):
                self.load.run(server, workload='pairs', names=names_of(0, turn, 64), seconds=self.warm_up_seconds,
                              window=4)
            stack.pop_all()
        return server

    def copy_of_accounts(self) -> Path:
        return Path(shutil.copy(self.accounts.path, self.folder / f'{next(self.databases)}.db'))

    def measure(self, workload: Workload, servers: list[Server], turn: int) -> None:
        self.progress(f'round {turn + 1}: {workload.name}')
        for server in servers:
            if server.name in self.results[workload.name]:
                self.keep(workload, server.name, self.figures_of(workload, server, turn))

    def figures_of(self, workload: Workload, server: Server, turn: int) -> Figures:
        order = dict(workload.order)
        if workload.users:
            order['names'] = names_of(self.chosen.index(workload) + 1, turn, workload.users)
        if workload.tokens:
            order['users'] = self.accounts.users[:workload.tokens]
        self.runs += 1
        before, began = waited(server.process.pid), time.monotonic()
        figures = self.load.run(server, **order)
        share = (waited(server.process.pid) - before) / (time.monotonic() - began)
        if share > DISTURBED:
            self.disturbed.append(f'{workload.name}, {server.name}, round {turn + 1}: {share:.0%}')
            self.progress(f'{server.name}: for {share:.0%} of this, something else ran on its core')
        return figures

    def keep(self, workload: Workload, name: str, figures: Figures) -> None:
        for key, value in figures.items():
            self.results[workload.name][name][key].append(value)

    def measure_alone(self, workload: Workload, name: str) -> None:
        self.progress(f'{workload.name}: {name}')
        if workload.logs:
            figures = self.figures_with_logs(workload, name)
        else:
            with closing(self.started(name)) as server:
                figures = self.figures_of(workload, server, 0)
        self.keep(workload, name, figures)

    def figures_with_logs(self, workload: Workload, name: str) -> Figures:
        figures = {}
        for size in workload.logs:
            path = self.folder / f'log{size}.db'
            users = make_log(path, size)
            self.progress(f'{workload.name}: made one of {size:,} messages')
            with closing(Server(name, path)) as server:
                figures[f'ms_of_{size}'] = self.load.run(server, users=users, **workload.order)['ms']
        first, *_, last = figures.values()
        return figures | {'times': last / first}


# The command line ....................................................................................

def most_connections() -> int:
    """Allow ourselves, and so our children, as many descriptors as the system lets us; return how many clients fit."""
    if resource is None:
        return 400  # select() on Windows
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS calls it unlimited, and has a limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft - 100


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='how fast the server is, against others')
    parser.add_argument('--quick', action='store_true', help='under a minute in all')
    parser.add_argument('--rounds', type=int, choices=range(1, 100), metavar='N', help='default: 5, quick: 1')
    parser.add_argument('--json', action='store_true', help='print all figures of all rounds')
    parser.add_argument('--only', nargs='+', default=[''], metavar='PREFIX', help='workloads whose name begins so')
    parser.add_argument('--servers', nargs='+', choices=LABELS, metavar='NAME', help=', '.join(LABELS),
                        default=[name for name in LABELS if name != 'uvloop' or find_spec('uvloop')])
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def choose(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that are asked for and can be done."""
    limit, chosen = most_connections(), []
    for workload in workloads(options.quick):
        if workload.name.startswith(tuple(options.only)) and {*workload.servers} & {*options.servers}:
            if (needed := workload.users + workload.tokens) <= limit:
                chosen.append(workload)
            else:
                print(f'{workload.name}: left out, it takes {needed:,} descriptors', file=sys.stderr)
    if not chosen:
        raise SystemExit('there is nothing to measure')
    return chosen


def stop(number: int, frame: Any) -> None:
    """End by way of all that is to be closed, and undisturbed."""
    for signal_number in STOPS:
        signal.signal(signal_number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    options = parse_options()
    chosen = choose(options)
    for signal_number in STOPS:
        signal.signal(signal_number, stop)
    with tempfile.TemporaryDirectory() as folder, closing(Load()) as load:
        bench = Bench(Path(folder), load, chosen, list(dict.fromkeys(options.servers)), options.quick)
        bench.run(options.rounds)
    if options.json:
        print(json.dumps({'machine': machine(), 'rounds': options.rounds, 'quick': options.quick,
                          'disturbed': bench.disturbed, 'workloads': bench.results}, indent=1))
    else:
        show({w.name: w.figures for w in chosen}, bench.results, options.rounds)
        if bench.disturbed:
            print(f'\nDuring {len(bench.disturbed)} of {bench.runs} runs something else ran on the core of the server.')


if __name__ == '__main__':
    main()
