"""What the server tells who watches it: --trace, --trace-ticks, --stats, SIGUSR1, and its --help."""
import logging
import re
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing

import imclient
import imserver
import pytest
from peers import World
from processes import ROOT, messages, pipeline, wait_until
from test_imserver import blocked_reader
from protocol import GroupMessageRequest, GroupMessageResponse, LoginRequest, MessageRequest, MessageResponse, encode

STATS = re.compile(r'(?P<connections>\d+) connections, (?P<logged_in>\d+) logged in \| messages a second: (?P<came>\d+) in, '
                   r'(?P<went>\d+) out \| loop lag in ms: p50 (?P<p50>\S+), p99 (?P<p99>\S+), max (?P<max>\S+) \| '
                   r'commit (?P<commit>\S+) ms \| (?P<waiting>\d+) bytes wait')
TICK = re.compile(r'tick: (\d+) sockets, (\d+) timers, (\d+) sent to \| ms: read (\S+), timers (\S+), commit (\S+), '
                  r'flush (\S+), all (\S+)')


@pytest.fixture
def said(caplog):
    """What the server has logged since the last call."""
    caplog.set_level(logging.INFO, 'im.server')

    def said():
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines
    return said


def stats_in(lines):
    return [{name: float(value) for name, value in match.groupdict().items()}
            for line in lines if (match := STATS.fullmatch(line))]


# Frames ..............................................................................................

def test_each_frame_is_told_both_ways_with_its_fields_and_without_secrets(said):
    with closing(World(':memory:', '--trace')) as world:
        alice, bob = world.login('alice'), world.login('bob', version=1)
        said()
        alice.say('bob', 'hi 你好')
        bob.expect(MessageResponse)
        told = [line for line in said() if '\n' in line]
        heads = [line.partition('\n')[0] for line in told]
        assert heads == [f'{alice.channel.address} received', f'{alice.channel.address} sends', f'{bob.channel.address} sends']
        assert told[2].split('\n')[1:] == [
            '   0  12 34 56 78  magic', '   4  01           version 1', '   5  01           serializer 1',
            '   6  04           command 4 MESSAGE_RESPONSE', '   7  00 00 00 43  length 67',
            '  11  {"fromUserId":"alice","fromUserName":"alice","message":"hi 你好"}']
        world.connect().send(LoginRequest(user_name='carol', password='geheim'))
        world.settle()
        text = '\n'.join(said())
        assert 'LOGIN_REQUEST' in text and '"password":"***"' in text and '"token":"***"' in text
        assert 'geheim' not in text


def test_frames_that_go_out_together_are_told_one_by_one(said):
    with closing(World(':memory:', '--trace')) as world:
        alice, bob = world.login('alice'), world.login('bob')
        said()
        alice.send(*messages('bob', 5))
        world.settle()
        assert len([line for line in said() if line.startswith(f'{bob.channel.address} sends')]) == 5


@pytest.mark.parametrize('frame', [
    b'\x12\x34\x56\x78\x02\x01\xc8\0\0\0\x02{}',
    b'\x12\x34\x56\x78\x02\x01\x01\0\0\0\x02\xff\xff', encode(LoginRequest(user_name='\x1b[2J', password='x'), 2)],
    ids=['command', 'no text', 'control character'])
def test_what_is_no_packet_is_told_and_refused_all_the_same(said, caplog, frame):
    with closing(World(':memory:', '--trace')) as world:
        peer = world.connect()
        peer.send_bytes(frame)
        world.settle()
        lines = said()
        assert any(line.startswith(f'{peer.channel.address} received\n   0  12 34 56 78') for line in lines), lines
        assert '\x1b' not in ''.join(lines) and 'bug' not in ''.join(lines)
        assert peer.receive_all_now() and peer.channel.is_open


def test_nothing_is_told_that_was_not_asked_for(said):
    with closing(World()) as world:
        world.login('alice').say('alice', 'hi')
        assert not [line for line in said() if '\n' in line or TICK.fullmatch(line) or STATS.fullmatch(line)]


# Ticks ...............................................................................................

def test_what_a_turn_of_the_loop_did(said):
    with closing(World(':memory:', '--trace-ticks')) as world:
        alice, bob = world.login('alice'), world.login('bob')
        said()
        alice.send(*messages('bob', 3))
        world.loop.tick(1)
        world.loop.call_later(0, setattr, world.clock, 'now', world.clock.now + 0.25)
        world.loop.tick(1)
        first, second = [TICK.fullmatch(line).groups() for line in said()]
        assert first == ('1', '0', '2', '0.00', '0.00', '0.00', '0.00', '0.00')  # alice's socket; alice and bob are sent to
        assert second[1] == '1' and second[4] == second[7] == '250.00'
        bob.expect(MessageResponse)


# Statistics ..........................................................................................

def test_stats_count_what_was_and_begin_anew_with_each_line(said):
    with closing(World(':memory:', '--stats', '2')) as world:
        alice, *_ = [world.login(name) for name in ('alice', 'bob', 'carol')]
        world.connect()
        world.pass_time(2)
        said()
        alice.send(*messages('bob', 6))
        world.settle()
        world.pass_time(2)
        (line,) = stats_in(said())
        assert (line['connections'], line['logged_in'], line['waiting']) == (4, 3, 0)
        assert (line['came'], line['went']) == (3, 3)  # a second
        world.pass_time(2)
        (line,) = stats_in(said())
        assert (line['came'], line['went']) == (0, 0)


def test_a_group_message_comes_once_and_goes_to_each_member(said):
    with closing(World(':memory:', '--stats', '1')) as world:
        alice, bob, carol = (world.login(name) for name in ('alice', 'bob', 'carol'))
        group = alice.create('bob', 'carol')
        world.pass_time(1)
        said()
        for n in range(10):
            alice.send(GroupMessageRequest(to_group_id=group, message=f'{n}', client_seq=n + 2))
        world.settle()
        world.pass_time(1)
        (line,) = stats_in(said())
        assert (line['came'], line['went']) == (10, 30)
        assert len([packet for packet in bob.receive_all_now() if type(packet) is GroupMessageResponse]) == 10


def test_stats_look_back_on_so_many_ticks_and_no_more(said, monkeypatch):
    monkeypatch.setattr(imserver, 'TICKS', 4)
    with closing(World()) as world:
        for seconds in 9, 1, 1, 1, 1:
            world.loop.call_soon(setattr, world.clock, 'now', world.clock.now + seconds)
            world.loop.tick(0)
        assert len(world.server._ticks) == 4
        said()
        world.server.report()
        (line,) = stats_in(said())
        assert (line['p50'], line['max']) == (1000, 1000)  # the one of 9 s is forgotten


def test_lag_is_told_by_its_quantiles(said):
    with closing(World()) as world:
        world.server._ticks.clear()
        for n in range(200):
            world.loop.call_soon(setattr, world.clock, 'now', world.clock.now + (0.5 if n == 150 else 0.001 * (n % 2)))
            world.loop.tick(0)
        world.server.report()
        (line,) = stats_in(said())
        assert (line['p50'], line['p99'], line['max']) == (1, 1, 500)


def test_bytes_that_wait_are_those_of_all_connections(said):
    with closing(World()) as world:
        blocked_reader(world)
        world.server.report()
        (line,) = stats_in(said())
        assert line['waiting'] == sum(channel.buffered for channel in world.server.listener.channels) > 0


@pytest.mark.skipif(not hasattr(signal, 'SIGUSR1'), reason='no SIGUSR1 here')
def test_sigusr1_tells_at_once_and_stats_by_themselves(system):
    server = system.server()
    peer = system.peer('alice')
    system.peer('bob')
    pipeline(peer, messages('bob', 100))
    server.process.popen.send_signal(signal.SIGUSR1)
    wait_until(lambda: STATS.search(server.errors.read_text(encoding='utf-8')), 'a line')
    line = STATS.search(server.errors.read_text(encoding='utf-8'))
    assert line['logged_in'] == '2' and int(line['came']) > 0 and int(line['went']) > 0
    often = system.server('--stats', '1', database='other.db')
    wait_until(lambda: len(STATS.findall(often.errors.read_text(encoding='utf-8'))) >= 2, 'two lines')


@pytest.mark.soak
def test_what_watching_costs(system, figure, no_coverage):
    """Turns with and without, in one run; the quickest of each counts."""
    options = {'nothing': [], '--stats': ['--stats', '1'], '--trace-ticks': ['--trace-ticks']}
    seconds = {name: [] for name in options}
    pairs = {}
    for name, more in options.items():
        system.server('--durability', 'off', *more, database=f'{name}.db')
        pairs[name] = system.peer('alice'), system.peer('bob')
        pairs[name][1].socket.close()
    for _ in range(7):
        for name, (alice, _) in pairs.items():
            begin = time.perf_counter()
            pipeline(alice, [alice.numbered(MessageRequest, to_user_id='bob', message='x' * 100) for _ in range(4_000)])
            seconds[name].append(time.perf_counter() - begin)
    ratios = {name: statistics.median(b / a for a, b in zip(seconds['nothing'], times)) for name, times in seconds.items()}
    figure(', '.join(f'{name} takes {ratio:.2f} times as long' for name, ratio in ratios.items() if name != 'nothing'))
    assert ratios['--stats'] < 1.1 and ratios['--trace-ticks'] < 1.1


# Help ................................................................................................

@pytest.mark.parametrize('module', [imserver, imclient], ids=['server', 'client'])
def test_help_is_complete_grouped_and_names_the_defaults(module):
    done = subprocess.run([sys.executable, f'{module.__name__}.py', '--help'], cwd=ROOT, capture_output=True, check=True,
                          encoding='utf-8')
    parser = module.make_parser()
    text = ' '.join(done.stdout.split())
    for action in parser._actions:
        assert action.help and all(option in done.stdout for option in action.option_strings), action
        if action.default not in (None, False, '==SUPPRESS=='):
            assert str(action.default) in text, action
    assert len(re.findall(r'^[a-z ,]+:$', done.stdout, re.MULTILINE)) >= 3, done.stdout
    assert max(map(len, done.stdout.split('\n'))) <= 80
