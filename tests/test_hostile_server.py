"""The client against a server that is hostile: it floods, stays silent, closes, lies about lengths and names.

The client is the real imclient.py, as a process: through pipes, with --json, and in a pseudo-terminal.  The server is a
thread of this process with blocking sockets that does what the test says.  Where waiting would take long (silence,
back-off) client and server share a loop with a made-up clock.  Each test says at the end of the run what it measured.
"""
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

import imclient
import protocol
from console import INDENT, width
from processes import PATIENCE, ROOT, wait_until
from protocol import (
    HEADER, MAGIC, PACKETS, RESPONSES, CreateGroupResponse, ErrorResponse, GroupMessageResponse, GroupNotice,
    HeartbeatResponse, KickedNotice, ListUsersResponse, LoginRequest, LoginResponse, MessageResponse, User, encode)
from test_imclient import Tty, World

pytestmark = [pytest.mark.usefixtures('no_coverage'),
              pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='there is no /proc')]
LARGEST = 64 * 1024  # KiB of memory that a client may take at most
STEERING = {'Cc', 'Cf', 'Zl', 'Zp', 'Cs'}  # categories of characters that may do something to a terminal
WELCOME = LoginResponse(success=True, user_name='alice', user_id='alice', token='t', log_id='log', last_client_seq=0)
THE_END = 'this is the end'


# The server ...........................................................................................................

class HostileServer:
    """Does `behave(server, sock)` with each connection, in a thread of its own; `end` ends them all."""

    def __init__(self, behave):
        self.behave, self.sockets, self.error = behave, [], None
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self):
        with suppress(OSError):  # it was shut down
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(PATIENCE)
                self.sockets.append(sock)
                self.threads.append(threading.Thread(target=self._serve, args=[sock]))
                self.threads[-1].start()

    def _serve(self, sock):
        try:
            with suppress(OSError):  # the client has gone
                self.behave(self, sock)
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        except Exception as error:
            self.error = error

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(PATIENCE)
        self.listener.close()
        for sock in self.sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        for sock in self.sockets:
            sock.close()
        if self.error:
            raise self.error


def read_until_end(sock):
    while sock.recv(65536):
        pass


def await_login(sock):
    """Read until a login request has come, whole."""
    decoder = protocol.FrameDecoder()
    while data := sock.recv(65536):
        decoder.feed(data)
        if any(frame[6] == LoginRequest.COMMAND for frame in decoder):
            return


def send(sock, *packets, version=2):
    sock.sendall(b''.join(encode(packet, version) for packet in packets))


# The client ...........................................................................................................

def steering(text):
    """The characters of `text` that may do something to a terminal."""
    return [] if text.isprintable() else [char for char in text if unicodedata.category(char) in STEERING]


class ClientProcess:
    """The real client; a thread looks at each line that it prints, and keeps the first and the last ones."""

    def __init__(self, port, errors, *options, user='alice'):
        self.errors, self.steering, self.count, self.bytes = errors, [], 0, 0
        self.first, self.last = [], ''
        with open(errors, 'ab') as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, '-W', 'error', 'imclient.py', '--port', str(port), '--user', user, *options], cwd=ROOT,
                env={**os.environ, 'IM_PASSWORD': 'secret'}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=stderr)
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        for line in self.popen.stdout:
            text = line.decode('utf-8', 'surrogateescape')[:-1]
            self.count, self.bytes = self.count + 1, self.bytes + len(line)
            self.steering += steering(text)[:10]
            self.last = text
            if len(self.first) < 500:
                self.first.append(text)

    def expect(self, pattern, seconds=PATIENCE):
        wait_until(lambda: any(re.search(pattern, line) for line in [*self.first, self.last]),
                   f'{pattern!r} in {self.first[:20]} ... {self.last[:200]!r}', seconds)

    def largest(self):
        """KiB of memory that it has taken at most."""
        text = Path(f'/proc/{self.popen.pid}/status').read_text(encoding='utf-8')
        return int(re.search(r'^VmHWM:\s*(\d+)', text, re.MULTILINE)[1])

    def cpu(self):
        """Seconds."""
        fields = Path(f'/proc/{self.popen.pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def end(self, waits=False):
        """End it (`waits`: it ends by itself); nothing on its standard error may be a fault of ours or steer."""
        try:
            self.popen.wait(PATIENCE) if waits else self.popen.terminate()
            code = self.popen.wait(PATIENCE)
        finally:
            self.popen.kill()
            self.thread.join(PATIENCE)
            self.popen.stdin.close()
            self.popen.stdout.close()
            self.popen.wait()
        complaints = self.errors.read_text(encoding='utf-8')
        assert 'Traceback' not in complaints and not steering(complaints.replace('\n', '')), complaints
        return code


@pytest.fixture
def against(tmp_path):
    """against(behave, *options): a client process and the hostile server that it was started with."""
    running = []

    def start(behave, *options, **named):
        server = HostileServer(behave)
        running.append(server)
        client = ClientProcess(server.port, tmp_path / f'{len(running)}.err', *options, **named)
        running.append(client)
        return client, server
    yield start
    for one in reversed(running):
        if isinstance(one, HostileServer) or one.popen.returncode is None:
            one.end()


# Lengths ..............................................................................................................

@pytest.mark.parametrize('place, length, options', [
    ('before login', 2**31, []), ('after login', 2**31 - 1, []), ('after login', 2**32 - 1, ['--json'])],
    ids=['before login', 'after login', 'json'])
def test_a_length_beyond_all_bounds_ends_the_connection(against, figure, place, length, options):
    began = []

    def behave(server, sock):
        await_login(sock)
        if place == 'after login':
            send(sock, WELCOME)
        began.append(time.monotonic())
        sock.sendall(HEADER.pack(MAGIC, 2, 1, MessageResponse.COMMAND, length))
        for _ in range(200):  # as much of it as is taken
            sock.sendall(b'x' * 1_000_000)
    client, server = against(behave, *options)
    client.expect(f'the server does not speak this protocol: a body of {length} bytes is over the limit')
    client.expect('reconnecting' if options else 'connecting again in')
    seconds = time.monotonic() - began[0]
    wait_until(lambda: len(server.sockets) >= 2, 'it comes back')
    largest = client.largest()
    client.end()
    figure(f'told after {seconds * 1000:.0f} ms; VmHWM {largest / 1024:.0f} MiB')
    assert seconds < 3 and largest < LARGEST and not client.steering


# Floods ...............................................................................................................

CONTROLS = 'a\x1b[2J\x1b]52;c;cm0gLXJm\x07\x9b31m\x00\x08\x7f\r\v\u202eb\u2066c\u2028d\u200b\n10:00 bob: forged'


def group_messages(number):
    """New groups without end."""
    user = User(user_id='bob', user_name='bob')
    return b''.join(encode(GroupMessageResponse(from_group_id=f'{n:08x}', from_user=user, message='hi' * size,
                                                message_id=n, sent_at=1), 2)
                    for n, size in ((2 * number, 0), (2 * number + 1, 2000)))


def group_notices(number):
    """New groups without end, whose ids are long."""
    group, user = f'{number:08x}' * 12_000, User(user_id='bob', user_name='bob')
    return encode(GroupNotice(group_id=group, event='joined', user=user, message_id=number, sent_at=1), 2)


def heartbeats(number):
    return encode(HeartbeatResponse(), 2) * 300


def control_characters(number):
    text = CONTROLS + 'x' * 60
    return b''.join(encode(packet, 2) for packet in (
        MessageResponse(from_user_id=text, from_user_name=text, message=text, message_id=number, sent_at=1),
        ErrorResponse(command=3, code=text, reason=text)))


def unreadable(number):
    return HEADER.pack(MAGIC, 2, 1, MessageResponse.COMMAND, 4) + b'\x1b[2J'


def users(number):
    """A list as long as a frame can hold: the packet that takes most memory for its bytes."""
    body = b'{"userList":[%s]}' % b','.join([b'{}'] * 340_000)
    return HEADER.pack(MAGIC, 2, 1, ListUsersResponse.COMMAND, len(body)) + body


def names(number):
    """The same of texts."""
    return encode(CreateGroupResponse(success=True, group_id='0', message_id=number, sent_at=1,
                                      user_name_list=[f'{n:06d}' for n in range(110_000)]), 2)


def rubbish(number):
    """What no packet knows, but has to be parsed: the shortest objects that Python makes much of."""
    body = b'{"x":[%s]}' % b','.join([b'{"":0}'] * 149_000)
    return HEADER.pack(MAGIC, 2, 1, HeartbeatResponse.COMMAND, len(body)) + body


MEGABYTES = {group_messages: 50, group_notices: 50, heartbeats: 4, control_characters: 4, unreadable: 0.5, users: 2,
             names: 2, rubbish: 2}
JSON = ['--json']
IDS = {(): 'plain', tuple(JSON): 'json'}
SHORT = ((group_messages, []), (group_notices, JSON), (heartbeats, []), (control_characters, []),
         (control_characters, JSON), (unreadable, []), (users, []), (names, []))
FLOODS = [pytest.param(frames, 1, options, id=f'{frames.__name__}-{IDS[tuple(options)]}')
          for frames, options in SHORT]
FLOODS += [pytest.param(frames, 10, options, marks=pytest.mark.soak,
                        id=f'{frames.__name__}-{IDS[tuple(options)]}-long')
           for frames in MEGABYTES for options in ([], JSON)]


@pytest.mark.parametrize('frames, times, options', FLOODS)
def test_a_flood_takes_no_memory_and_steers_nothing(against, figure, frames, times, options):
    sent, size = [0], MEGABYTES[frames] * times * 1_000_000

    def behave(server, sock):
        await_login(sock)
        send(sock, WELCOME)
        number = 0
        while sent[0] < size:
            data = b''
            while len(data) < 100_000:
                number += 1
                data += frames(number)
            sock.sendall(data)
            sent[0] += len(data)
        send(sock, MessageResponse(from_user_id='bob', message=THE_END, message_id=2**40, sent_at=1))
        read_until_end(sock)
    began = time.monotonic()
    client, _ = against(behave, *options)
    client.expect(THE_END, 20 + 10 * PATIENCE * (times - 1))
    seconds, largest = time.monotonic() - began, client.largest()
    client.end()
    figure(f'{sent[0] / 1e6:.0f} MB in {seconds:.1f} s, {client.count:,} lines ({client.bytes / 1e6:.0f} MB) printed; '
           f'VmHWM {largest / 1024:.0f} MiB')
    assert not client.steering and not [line for line in client.first if line.startswith('10:00')]
    if largest >= LARGEST:
        raise AssertionError(f'{largest} KiB')


# Silence, and closing at once .........................................................................................

@pytest.fixture
def world():
    """A client and a server on one loop, with a made-up clock."""
    world = World()
    yield world
    world.close()


def pass_until(world, name, limit):
    """Let 5 seconds after 5 seconds pass until an event of that name; return how many."""
    began = world.clock.now
    while name not in world.names:
        assert world.clock.now < began + limit, f'no {name} within {limit} s: {world.events}'
        world.pass_time(5.0)
    return world.clock.now - began


@pytest.mark.parametrize('answers_heartbeats', [False, True], ids=['silence', 'heartbeats'])
def test_a_server_that_never_answers_the_login_is_sought_more_and_more_seldom(world, figure, answers_heartbeats):
    world.server.on, world.server.answers_heartbeats = {}, answers_heartbeats
    world.client.login('alice', 'secret')
    world.settle()
    taken, delays = [], []
    for _ in range(7):
        taken.append(pass_until(world, 'disconnected', 100))
        reason = world.of('disconnected')[0]['reason']
        assert 'login was not answered' in reason
        delays.append(world.of('reconnecting')[0]['delay'])
        assert world.names[-2:] == ['disconnected', 'reconnecting'] and world.loop.is_quiet
        world.events.clear()
        world.pass_time(delays[-1])
        assert world.names == ['connected']
    assert taken == [imclient.LOGIN_PATIENCE] * 7 and delays == [1, 2, 4, 8, 16, 30, 30]
    figure(f'given up after {taken[0]:g} s: {reason!r}, pauses {delays}')


def test_a_server_that_falls_silent_after_the_login_is_given_up(world, figure):
    world.server.answers_heartbeats = False
    world.client.login('alice', 'secret')
    world.settle()
    taken = []
    for _ in range(3):
        assert world.names[-2:] == ['connected', 'login']
        world.events.clear()
        taken.append(pass_until(world, 'disconnected', 100))
        assert world.of('disconnected')[0]['reason'] == 'the server was silent for 15 s'
        assert world.of('reconnecting')[0]['delay'] == 1  # it had let us in
        world.pass_time(1.0)
    assert taken == [imclient.SERVER_IDLE] * 3
    figure(f'given up after {taken[0]:g} s')


def test_a_login_that_is_answered_in_time_is_not_given_up(world):
    world.server.on = {}
    world.client.login('alice', 'secret')
    for _ in range(14):
        world.pass_time(4.0)
    world.link.send(world.server.login_answer(LoginRequest(user_name='alice')))
    for _ in range(40):
        world.pass_time(5.0)
    assert world.names == ['connected', 'login'] and world.client.is_logged_in


@pytest.mark.parametrize('welcomes', [False, True], ids=['without a word', 'after a login'])
def test_a_server_that_closes_at_once_is_no_busy_loop(against, figure, welcomes):
    """Full jitter: a pause may be short, so they are not judged one by one (test_imclient.py does); the work is."""
    def behave(server, sock):
        if welcomes:
            await_login(sock)
            send(sock, WELCOME)
    client, server = against(behave)
    wait_until(lambda: server.sockets, 'the first connection')
    client.expect('connecting again')
    began, cpu, tries = time.monotonic(), client.cpu(), len(server.sockets)
    wait_until(lambda: len(server.sockets) >= tries + 2, 'two more')
    seconds, cpu, tries = time.monotonic() - began, client.cpu() - cpu, len(server.sockets) - tries
    client.end()
    figure(f'{tries} connections in {seconds:.2f} s took {cpu:.2f} s of CPU')
    assert cpu < 0.3 and tries < 2 + 20 * seconds


def test_closed_at_once_the_pauses_grow(world, figure):
    world.server.on = {LoginRequest: lambda link, packet: link.channel.close()}
    world.client.login('alice', 'secret')
    delays = []
    for _ in range(8):
        world.settle()
        delays.append(world.of('reconnecting')[-1]['delay'])
        assert world.names[-1] == 'reconnecting'
        world.pass_time(delays[-1])
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30] and len(world.server.links) == 9
    figure(f'pauses {delays}')


# Texts ................................................................................................................

FORGED = '10:00 mallory: forged'
HOSTILE = ''.join((
    'x\x1b[2J', '\x1b]0;title\x07', '\x1b]52;c;cm0gLXJm\x1b\\', '\x1b]8;;http://x\x1b\\', '\x1b[?1000h',
    '\x07\x08\r\v\0\x7f\x85\x9b2J', '\u202e\u2066\u2028\u2029\u200b\ufeff\xad', f'\n{FORGED}', f'\r\n{FORGED}',
    f'\r{FORGED}\v{FORGED}\f{FORGED}\x85{FORGED}\u2028{FORGED}', '{0}%s\\n'))
COLUMNS = 80


def hostile(kind, success, numbers):
    """A `kind` in which every text is hostile, and every list and every part is there."""
    def value(f):
        if f.kind is str:
            return f'{f.name}<{HOSTILE}>'
        if f.kind is bool:
            return success
        return next(numbers) if f.kind is int else hostile(f.kind, True, numbers)
    return kind(**{f.attribute: [value(f)] if f.many else value(f) for f in kind.FIELDS})


def assault():
    """All that a hostile server can say to one who is logged in, but for what ends the session."""
    numbers = iter(range(1, 10_000))
    kinds = [PACKETS[command] for command in sorted(RESPONSES - {LoginResponse.COMMAND, KickedNotice.COMMAND})]
    packets = [hostile(kind, success, numbers) for kind in kinds for success in (False, True)
               if success is False or any(f.kind is bool for f in kind.FIELDS)]
    packets = [packet for packet in packets if not (type(packet) is protocol.LogoutResponse and packet.success)]
    packets += [MessageResponse(from_user_id='bob', message=' ' * count + FORGED, message_id=next(numbers), sent_at=1)
                for count in range(COLUMNS - 30, COLUMNS)]  # the line that it is on wraps in front of it
    packets.append(hostile(CreateGroupResponse, True, numbers))
    packets[-1].client_seq = None  # no answer, but news
    return packets


def attack(server, sock):
    """Says all of this, and what cannot be read.  A script ends with the kick; in a terminal one sees what follows."""
    await_login(sock)
    send(sock, hostile(LoginResponse, True, iter(range(1, 9))), *assault())
    for body in b'\x1b[2J', b'{"a":\x1b]0;x\x07}', b'{"groupId":"\xc2\x9b2J"}', b'{"groupId":NaN\x1b}':
        sock.sendall(HEADER.pack(MAGIC, 2, 1, KickedNotice.COMMAND, len(body)) + body)
    send(sock, hostile(KickedNotice, True, iter([])),
         MessageResponse(from_user_id='bob', message=THE_END, message_id=20_000, sent_at=1))
    read_until_end(sock)


def texts_of(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


def test_through_a_pipe_no_text_steers_or_forges(against, figure):
    client, _ = against(attack)
    assert client.end(waits=True) == 1
    assert not client.steering, sorted(set(client.steering))
    assert not [line for line in client.first if line.startswith(FORGED) or 'mallory' in line[:12]]
    assert client.count == len(client.first) > 50
    assert sum(HOSTILE[0] in line and r'\n10:00 mallory' in line for line in client.first) > 15
    figure(f'{client.count} lines, {client.bytes:,} bytes: no character that steers, no line of somebody else')


def test_as_json_every_line_is_one_object_and_nothing_is_lost(against, figure):
    client, _ = against(attack, '--json')
    assert client.end(waits=True) == 1
    assert not client.steering and all(line.isascii() for line in client.first)
    events = [json.loads(line) for line in client.first]
    assert all(type(event) is dict and event['event'] for event in events) and client.count == len(events) > 50
    whole = [text for text in texts_of(events) if HOSTILE in text]
    figure(f'{len(events)} objects, a line each; {len(whole)} hostile texts, each as it was sent')
    assert len(whole) > 40


@pytest.mark.parametrize('options', [[], ['--json']], ids=['plain', 'json'])
@pytest.mark.parametrize('refusal', [
    LoginResponse(success=False, user_name=HOSTILE, reason=HOSTILE, code=HOSTILE),
    ErrorResponse(command=LoginRequest.COMMAND, code=HOSTILE, reason=HOSTILE)], ids=['response', 'error'])
def test_a_refused_login_steers_nothing(against, figure, refusal, options):
    def behave(server, sock):
        await_login(sock)
        send(sock, refusal)
        read_until_end(sock)
    client, _ = against(behave, *options)
    assert client.end(waits=True) == 1
    figure(f'{client.count} lines; standard error: {client.errors.stat().st_size} bytes')
    assert not client.steering and client.count == 2 and 'mallory' in client.last


COLOURS = re.compile(r'\x1b\[\d\d?m')  # the only sequences that the console itself sends


@pytest.mark.parametrize('options', [[], ['--no-color']], ids=['colours', 'no colours'])
def test_in_a_terminal_no_text_steers_or_forges(figure, options):
    server = HostileServer(attack)
    tty = Tty(server.port, *options, columns=COLUMNS)
    try:
        tty.sees(THE_END)
        tty.type('\x04')
        assert tty.ends() == 1  # there were errors
    finally:
        tty.close()
        server.end()
    text = tty.raw.decode('utf-8')
    plain = COLOURS.sub('', text)
    assert not options or plain == text
    assert not [char for char in steering(plain) if char not in '\r\n']
    blank = '\r' + ' ' * (COLUMNS - 1) + '\r'  # to the edge: only to overwrite the row that was typed
    assert not re.search(r'\r(?!\n)', plain.replace(blank, ''))
    rows = [re.sub('^.*\r', '', row) for row in plain.replace('\r\n', '\n').split('\n')]
    assert max(map(width, rows)) <= COLUMNS
    assert not [row for row in rows if row.startswith(FORGED)]
    assert [row for row in rows if row.startswith(INDENT + FORGED)]
    figure(f'{len(rows)} rows, {len(tty.raw):,} bytes; {len(COLOURS.findall(text)):,} colours')
