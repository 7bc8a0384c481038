"""The benchmark runs and finds figures; how good they are is not judged here."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import bench
import bench_load
import bench_show
from protocol import GroupMessageRequest, LoginResponse, MessageRequest, encode

pytestmark = pytest.mark.usefixtures('no_coverage')
BENCH = Path(bench.__file__)
NAMES = [f'name{i:02}' for i in range(20)]


def run(*arguments):
    return subprocess.run([sys.executable, str(BENCH), '--quick', *arguments], capture_output=True, encoding='utf-8',
                          timeout=60)


def test_it_measures_our_server_and_the_others():
    done = run('--only', 'pairs, 1', 'logins', 'growth of', '--json', '--rounds', '2', '--servers', 'full', 'protocol')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)['workloads']
    assert list(found) == ['pairs, 1 in flight', 'logins', 'growth of the log']
    for name in 'pairs, 1 in flight', 'logins':
        assert list(found[name]) == ['full', 'protocol']
        assert all(len(figures['per_second']) == 2 for figures in found[name].values())
        assert all(10 < figure < 10_000_000 for figures in found[name].values() for figure in figures['per_second'])
    log = {name: figure for name, (figure,) in found['growth of the log']['full'].items()}
    assert 0 < log['ms_of_1000'] < 1_000 and 0 < log['ms_of_100000'] < 1_000 and 0.01 < log['times'] < 100


@pytest.mark.parametrize('arguments, error', [
    (['--servers', 'nonsense'], "invalid choice: 'nonsense'"), (['--only', 'nonsense'], 'there is nothing to measure')])
def test_what_it_does_not_know_is_refused(arguments, error):
    done = run(*arguments)
    assert done.returncode and error in done.stderr


def test_a_server_that_does_not_start_is_named(capfd):
    with pytest.raises(SystemExit, match='nonsense did not start'):
        bench.Server('nonsense', None)


def children_of(pid):
    return [int(path.name) for path in Path('/proc').glob('[0-9]*') if parent_of(path) == pid]


def parent_of(path):
    try:
        return int((path / 'stat').read_text(encoding='utf-8').rpartition(')')[2].split()[1])
    except OSError:  # it has ended meanwhile
        return None


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='there is no /proc')
def test_what_it_started_is_ended_with_it():
    with subprocess.Popen([sys.executable, str(BENCH), '--quick', '--only', 'pairs', '--servers', 'off', 'protocol'],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding='utf-8') as process:
        while 'round 1' not in process.stderr.readline():
            assert process.poll() is None
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
    assert len(children) == 3 and not [pid for pid in children if os.path.exists(f'/proc/{pid}')]


# The load ............................................................................................

@pytest.fixture(scope='module')
def server(tmp_path_factory, no_coverage):
    path = tmp_path_factory.mktemp('bench') / 'accounts.db'
    with closing(bench.Store(str(path), 'off')) as store:
        bench.add_users(store, NAMES)
        bench.commit(store)
    with closing(bench.Server('off', path)) as ours:
        yield bench_load.Server(ours.address, ours.process.pid)


@pytest.mark.parametrize('workload, window', [('pairs', 1), ('pairs', 32), ('group', 8)])
def test_nothing_is_left_behind(server, workload, window):
    """What is still on its way when a client closes would be the first thing after its next login."""
    for _ in range(2):
        assert bench_load.WORKLOADS[workload](server, NAMES, seconds=0.05, window=window)['per_second'] > 0
    with bench_load.log_in(server, bench_load.by_password(NAMES)) as clients:
        for client, name in zip(clients, NAMES):
            client.send(encode(MessageRequest(to_user_id=name, message='the first'), 1))
            assert client.next().message == 'the first'


def test_a_backlog_is_drained_to_its_end(server):
    assert bench_load.backlog(server, NAMES[:2], 1_000)['per_second'] > 0
    with bench_load.log_in(server, bench_load.by_password(NAMES[:1])) as (client,):
        client.send(encode(MessageRequest(to_user_id=NAMES[0], message='the first'), 1))
        assert client.next().message == 'the first'


def test_the_silent_members_of_a_group_count(server):
    """Each gets what the writer gets, though nobody waits for them."""
    with bench_load.log_in(server, bench_load.by_password(NAMES)) as clients:
        clients[0].send(encode(bench_load.CreateGroupRequest(user_id_list=NAMES), 1))
        group_id = [client.next().group_id for client in clients][0]
        frame = encode(GroupMessageRequest(to_group_id=group_id, message='x'), 1)
        clients[0].send(frame)
        own, *others = [bench_load.Flow(client, clients[0], frame, 0 if number else 3)
                        for number, client in enumerate(clients)]
        for _ in range(2):
            assert bench_load.measured([own], 0.05, bench_load.drain_in_turn(others), others) > 0
            assert {flow.total for flow in others} == {own.total}


@pytest.fixture
def closing_server():
    """Returns a function of how many messages a server answers, with themselves, before it closes; it gives one."""
    listener = socket.create_server(('127.0.0.1', 0))

    def serve(count):
        def serve_one():
            sock, _ = listener.accept()
            with sock:
                sock.recv(65_536)
                sock.sendall(encode(LoginResponse(success=True), 1))
                for _ in range(count):
                    sock.sendall(sock.recv(65_536))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass
        threads.append(threading.Thread(target=serve_one))
        threads[-1].start()
        return bench_load.Server(listener.getsockname(), os.getpid())

    threads = []
    yield serve
    for thread in threads:
        thread.join(10)
    listener.close()
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize('answered', [0, 1, 5])
def test_a_server_that_closes_is_an_error(closing_server, answered):
    """At each place where the load reads: to read on at the end of the input would never end."""
    frame = encode(MessageRequest(to_user_id='oneself', message='x'), 1)
    with pytest.raises(ConnectionError), \
            bench_load.log_in(closing_server(answered), bench_load.by_password(['oneself'])) as (client,):
        client.send(frame)
        bench_load.measured([bench_load.Flow(client, client, frame, 1)], 0.05)


def test_the_end_of_the_input_is_an_error_also_while_the_rest_arrives(closing_server):
    frame = encode(MessageRequest(to_user_id='oneself', message='x'), 1)
    with bench_load.log_in(closing_server(1), bench_load.by_password(['oneself'])) as (client,):
        client.send(frame)
        flow = bench_load.Flow(client, client, frame, 1)
        with pytest.raises(ConnectionError):
            flow.receive_until(1)


# What is shown .......................................................................................

def test_ratios_say_how_many_times_as_good_it_is():
    figures = {'speed': (bench_show.Figure('per_second', 'a second'),),
               'time': (bench_show.Figure('ms', 'ms', '{:.1f}', is_less_better=True),),
               'ours': (bench_show.Figure('kept', '%'),)}
    results = {'speed': {'full': {'per_second': [20, 90, 10]}, 'protocol': {'per_second': [10]}},
               'time': {'full': {'ms': [2]}, 'protocol': {'ms': [1]}}, 'ours': {'full': {'kept': [93]}}}
    found = bench_show.shown(figures, results)
    assert bench_show.summary(found).splitlines() == [
        '| workload | `full` | `tuned` | `protocol` |', '| --- | ---: | ---: | ---: |',
        '| speed | 2.00 |  | 1.00 |', '| time | 0.50 |  | 1.00 |', '| ours (%) | 93 |  |  |']
    assert bench_show.table(found[1]).splitlines()[0] == 'time (ms, less is better)'
