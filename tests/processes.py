"""The system as people run it, for tests: servers, clients and peers, each process of its own, ended by `System.end`.

The peers made of a raw socket block, with a time limit.  Nothing here sleeps to be right: `is_quiet` proves that
nothing came by asking for something that would have come after it.  IM_SELECTOR=poll (select, epoll) runs the
server under that one.
"""
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import protocol
from protocol import HeartbeatRequest, HeartbeatResponse, LoginRequest, LoginResponse, MessageAck, MessageRequest, encode

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds until a test gives up
SELECTORS = {'poll': 'PollSelector', 'select': 'SelectSelector', 'epoll': 'EpollSelector'}
SELECTOR = os.environ.get('IM_SELECTOR')
LAUNCHER = '''
import runpy, selectors, sys
selectors.DefaultSelector = getattr(selectors, sys.argv[1])
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name='__main__')
'''
RESET_ON_CLOSE = struct.pack('ii', 1, 0)  # for SO_LINGER: as when a process dies with bytes unread


def wait_until(condition, what, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'after {seconds:g} s not yet: {what() if callable(what) else what}'
        time.sleep(0.01)


class Process:
    """A Python process of ours; a thread collects the lines that it prints, without their time."""

    def __init__(self, arguments, errors, **variables):
        self.errors = errors
        with open(errors, 'ab') as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **variables},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, encoding='utf-8')
        self.lines, self._position, self._is_over = [], 0, False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(re.sub(r'^\d\d:\d\d ', '', line.rstrip('\n')))
                self._changed.notify()
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def expect(self, pattern, seconds=PATIENCE):
        """Return the match of the next line that is `pattern`, and go on behind it."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                while self._position < len(self.lines):
                    self._position += 1
                    if match := re.fullmatch(pattern, self.lines[self._position - 1]):
                        return match
                assert not self._is_over and time.monotonic() < deadline, (
                    f'no {pattern!r} in {self.lines}; errors: {self.errors.read_text(encoding="utf-8")}')
                self._changed.wait(max(0, deadline - time.monotonic()))

    def write(self, *lines):
        self.popen.stdin.write(''.join(f'{line}\n' for line in lines))
        self.popen.stdin.flush()

    def wait(self, seconds=PATIENCE):
        """Wait until it ends by itself and all that it printed was read; return the exit code."""
        code = self.popen.wait(seconds)
        self._reader.join(seconds)
        return code

    def end(self, number=signal.SIGTERM):
        """End it in any case, and return the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            code = self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = self.popen.wait()
        self._reader.join(PATIENCE)
        self.popen.stdin.close()
        self.popen.stdout.close()
        return code


class Terminal(Process):
    """An imclient.py through pipes."""

    def said(self):
        """The messages that it has shown."""
        return [line for line in self.lines if not line.startswith('--')]


class Server:
    """An imserver.py on one database; it can be ended and started again, on the same port."""

    def __init__(self, folder, options, database='im.db'):
        self.database, self.port, self._options = folder / database, 0, options
        self.errors = folder / f'{database}.err'
        self.process = None
        self.start()

    def start(self):
        launcher = ['-c', LAUNCHER, SELECTORS[SELECTOR]] if SELECTOR else []
        script = ['imserver.py', '--port', f'{self.port}', '--db', self.database, '--password-cost', '10',
                  '--rate', '0']
        self.process = Process(['-W', 'error', *launcher, *script, *self._options], self.errors)
        self.port = int(self.process.expect(r'listening on 127\.0\.0\.1:(\d+)')[1])

    def kill(self):
        assert self.process.end(signal.SIGKILL) == -signal.SIGKILL

    def terminate(self):
        assert self.process.end() == 0, self.errors.read_text(encoding='utf-8')

    def end(self):
        if self.process.popen.poll() is None:
            self.terminate()
        else:
            self.process.end()

    def written(self):
        """What changes when something is written to its database."""
        status = os.stat(f'{self.database}-wal')
        return status.st_mtime_ns, status.st_size

    def status(self, name):
        """A number of /proc/PID/status."""
        text = Path(f'/proc/{self.process.popen.pid}/status').read_text(encoding='utf-8')
        return int(re.search(rf'^{name}:\s*(\d+)', text, re.MULTILINE)[1])

    def cpu_ticks(self):
        text = Path(f'/proc/{self.process.popen.pid}/stat').read_text(encoding='utf-8')
        fields = text.rpartition(')')[2].split()
        return int(fields[11]) + int(fields[12])  # utime, stime


class Peer:
    """A client made of a blocking socket."""

    def __init__(self, port, version=2):
        self.version, self.seq = version, 0
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder, self._frames = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT), deque()

    def send(self, *packets):
        self.socket.sendall(b''.join(encode(packet, self.version) for packet in packets))

    def frame(self):
        """Return the next frame; b'' is the end of the connection."""
        while not self._frames:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b''
            if not data:
                return b''
            self._decoder.feed(data)
            self._frames.extend(self._decoder)
        return self._frames.popleft()

    def expect(self, kind):
        frame = self.frame()
        assert frame, f'the connection ended instead of {kind.__name__}'
        packet = protocol.decode(frame)
        assert type(packet) is kind, packet
        return packet

    def expect_all(self, kind, count):
        return [self.expect(kind) for _ in range(count)]

    def rest(self):
        """Return the packets that still come before the connection ends."""
        return [protocol.decode(frame) for frame in iter(self.frame, b'')]

    def ask(self, packet, kind):
        self.send(packet)
        return self.expect(kind)

    def login(self, name, password='secret'):
        answer = self.ask(LoginRequest(user_name=name, password=password), LoginResponse)
        assert answer.success, answer
        self.seq = answer.last_client_seq or 0
        return answer

    def numbered(self, kind, **fields):
        """Make a request with the next clientSeq."""
        self.seq += 1
        return kind(**fields, client_seq=self.seq)

    def is_quiet(self):
        """Whether nothing else has come."""
        self.send(HeartbeatRequest())
        return type(protocol.decode(self.frame())) is HeartbeatResponse

    def has_ended(self, within):
        self.socket.settimeout(within)
        try:
            return not self.frame()
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()


class System:
    """All processes and peers of a test."""

    def __init__(self, folder):
        self.folder = folder
        self._peers, self._processes, self._servers = [], [], []

    def server(self, *options, database='im.db'):
        self._servers.append(Server(self.folder, options, database))
        return self._servers[-1]

    def terminal(self, name, *options):
        """An imclient.py that has logged in."""
        terminal = Terminal(['imclient.py', '--user', name, '--port', str(self._servers[-1].port), *options],
                            self.folder / f'{name}-{len(self._processes)}.err', IM_PASSWORD='secret')
        self._processes.append(terminal)
        terminal.expect(f'-- logged in as {name}, protocol version 2')
        return terminal

    def run(self, *arguments):
        process = Process(arguments, self.folder / f'run-{len(self._processes)}.err')
        self._processes.append(process)
        return process

    def peer(self, name='', version=2, password='secret'):
        """A peer, logged in if it has a name."""
        self._peers.append(Peer(self._servers[-1].port, version))
        if name:
            self._peers[-1].login(name, password)
        return self._peers[-1]

    def register(self, *names):
        for name in names:
            self.peer(name).socket.close()

    def end(self):
        for peer in self._peers:
            peer.socket.close()
        for process in self._processes + self._servers:
            process.end()
        for file in self.folder.glob('*.err'):
            assert 'Traceback' not in file.read_text(encoding='utf-8'), file.read_text(encoding='utf-8')


def messages(user, count, text='message {}'):
    return [MessageRequest(to_user_id=user, message=text.format(n), client_seq=n)
            for n in range(1, count + 1)]


def pipeline(peer, requests, window=2000):
    """Send without waiting for each answer, and return all of them."""
    answers, at_once = [], 250
    for first in range(0, len(requests), at_once):
        peer.send(*requests[first:first + at_once])
        answers += peer.expect_all(MessageAck, max(0, first + at_once - len(answers) - window))
    return answers + peer.expect_all(MessageAck, len(requests) - len(answers))


def ids(packets):
    return [packet.message_id for packet in packets]


def texts(packets):
    return [packet.message for packet in packets]
