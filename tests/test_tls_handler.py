"""TlsHandler alone, on real sockets of this machine and with a clock that the test moves.

Its peers are Python's own blocking `ssl` socket in a thread, an `ssl.SSLObject` whose bytes the test carries, and
itself.  IM_SELECTOR=poll (select, epoll, kqueue) runs everything under that one.
"""
import contextlib
import gc
import logging
import random
import select
import socket
import ssl
import threading
import weakref

import pytest

from certificates import OTHER, write_certificates
from reactor import (
    CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, HIGH_WATER_MARK, INPUT_ENDED, Channel, Handler, TlsHandler)
from test_reactor import PATIENCE, Clock, Net, Recorder, echo, errors_in, handler

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LARGE = 3_000_000  # bytes


@pytest.fixture
def net():
    net = Net(Clock())
    with net.opened:
        yield net


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_certificates(tmp_path_factory.mktemp('good'))


@pytest.fixture(scope='module')
def other_files(tmp_path_factory):
    return write_certificates(tmp_path_factory.mktemp('other'), OTHER)


@pytest.fixture
def server_side(files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*files)
    return context


@pytest.fixture
def client_side(files):
    return ssl.create_default_context(cafile=str(files[0]))


class Witness(Recorder):
    """A recorder that closes its channel when told to; `errors`: what went wrong with TLS."""

    def __init__(self, *closes_on):
        super().__init__()
        self.closes_on = closes_on

    @property
    def errors(self):
        return [event for event in self.events if isinstance(event, ssl.SSLError)]

    def user_event(self, event):
        super().user_event(event)
        if event in self.closes_on or isinstance(event, ssl.SSLError):
            self.channel.close()


class Memory:
    """A TLS peer in memory; its bytes go over `sock` when the test says so."""

    def __init__(self, net, sock, context, **options):
        self.net, self.sock = net, sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        sock.setblocking(False)

    def push(self, size=1 << 20):
        data = self.outgoing.read()
        for start in range(0, len(data), size):
            self.sock.sendall(data[start:start + size])
            self.net.ticks(2)

    def ask(self, function, *arguments, size=1 << 20):
        """Call it until it has what it wants, carrying bytes both ways."""
        answer = []

        def is_done():
            with contextlib.suppress(BlockingIOError):
                self.incoming.write(self.sock.recv(1 << 20))
            try:
                answer.append(function(*arguments))
            except ssl.SSLWantReadError:
                pass
            self.push(size)
            return answer

        self.net.tick_until(is_done)
        return answer[0]


def secured(net, server_side, client_side, *handlers, size=1 << 20):
    """A channel of ours whose handshake is over, and its peer in memory."""
    channel, sock = net.channel(TlsHandler(server_side), *handlers)
    peer = Memory(net, sock, client_side, server_hostname='localhost')
    peer.ask(peer.tls.do_handshake, size=size)
    net.ticks(3)
    return channel, peer


class Blocking(threading.Thread):
    """Runs `act(socket)` on a TLS socket of Python's own; `result` is what it returned or raised."""

    def __init__(self, sock, context, act=lambda tls: None, **options):
        super().__init__(daemon=True)
        self.sock, self.context, self.act, self.options, self.result = sock, context, act, options, None
        sock.settimeout(PATIENCE)
        self.start()

    def run(self):
        try:
            with self.context.wrap_socket(self.sock, **self.options) as tls:
                self.result = self.act(tls)
        except OSError as error:
            self.result = error

    def end(self, net):
        net.tick_until(lambda: not self.is_alive())
        return self.result


def receive(tls, size):
    data = bytearray()
    while len(data) < size and (piece := tls.recv(1 << 16)):
        data += piece
    return bytes(data)


def speak(tls, data):
    """Send it while receiving as much; then say good-bye and wait for theirs.

    In one thread: an SSL object of OpenSSL cannot be used by two at once."""
    received, sent = bytearray(), 0
    tls.setblocking(False)
    while len(received) < len(data):
        with contextlib.suppress(ssl.SSLWantReadError):
            received += tls.recv(1 << 16)
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent += tls.send(data[sent:sent + 65_536]) if sent < len(data) else 0
        select.select([tls], [tls] if sent < len(data) else [], [], 0.01)
    tls.settimeout(PATIENCE)
    return received, tls.unwrap().recv(1)


# Python's own socket .................................................................................

@pytest.mark.parametrize('version', VERSIONS)
def test_a_server_of_ours_echoes_megabytes_and_both_say_goodbye(net, server_side, client_side, version):
    client_side.minimum_version = client_side.maximum_version = version
    data = random.Random(1).randbytes(LARGE)
    channel, sock = net.channel(TlsHandler(server_side), echo())
    peer = Blocking(sock, client_side, lambda tls: speak(tls, data), server_hostname='localhost')
    received, rest = peer.end(net)
    assert received == data and rest == b''
    net.tick_until(lambda: channel.is_closed)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_client_of_ours_sends_megabytes_and_gets_them_back(net, server_side, client_side, version):
    server_side.minimum_version = server_side.maximum_version = version
    data, witness = random.Random(2).randbytes(LARGE), Witness()
    channel, sock = net.channel(TlsHandler(client_side, 'localhost'), witness)
    peer = Blocking(sock, server_side, lambda tls: tls.sendall(receive(tls, LARGE)), server_side=True)
    channel.write(data)
    peer.end(net)
    net.tick_until(lambda: len(witness.received) == LARGE)
    assert witness.received == data and witness.errors == []


@pytest.mark.parametrize('version', VERSIONS)
def test_what_is_written_before_the_handshake_goes_out_after_it_by_itself(net, server_side, client_side, version):
    """In TLS 1.2 the client has nothing of its own left to send when the handshake ends."""
    server_side.minimum_version = server_side.maximum_version = version
    greet = handler(channel_active=lambda self: self.channel.write(b'hello'))
    channel, sock = net.channel(TlsHandler(client_side, 'localhost'), greet)
    assert channel.buffered >= 5
    assert Blocking(sock, server_side, lambda tls: receive(tls, 5), server_side=True).end(net) == b'hello'
    assert channel.buffered == 0


@pytest.mark.parametrize('version', VERSIONS)
def test_ours_on_both_sides(net, server_side, client_side, version):
    client_side.minimum_version = client_side.maximum_version = version
    data, witness, channels = random.Random(3).randbytes(LARGE), Witness(), []
    listener = net.listen(lambda channel: channel.pipeline.add_last(TlsHandler(server_side), echo()))
    sock = socket.create_connection(listener.address)
    channel = Channel(net.loop, sock, lambda it: it.pipeline.add_last(TlsHandler(client_side, '127.0.0.1'), witness))
    net.opened.callback(channel.abort)
    channel.write(data)
    net.tick_until(lambda: len(witness.received) == LARGE)
    channels.extend(listener.channels)
    channel.close()
    net.tick_until(lambda: channel.is_closed and channels[0].is_closed)
    assert witness.received == data and witness.errors == []


def test_the_oldest_versions_are_refused(net, server_side, client_side, recwarn):
    client_side.set_ciphers('ALL:@SECLEVEL=0')
    client_side.minimum_version = client_side.maximum_version = ssl.TLSVersion.TLSv1_1
    witness = Witness()
    channel, sock = net.channel(TlsHandler(server_side), witness)
    assert isinstance(Blocking(sock, client_side, server_hostname='localhost').end(net), ssl.SSLError)
    net.tick_until(lambda: witness.errors)
    assert 'unsupported protocol' in str(witness.errors[0])
    recwarn.clear()


# The handshake .......................................................................................

@pytest.mark.parametrize('version', VERSIONS)
def test_a_handshake_and_a_message_in_pieces_of_one_byte(net, server_side, client_side, version):
    client_side.minimum_version = client_side.maximum_version = version
    witness = Witness()
    channel, peer = secured(net, server_side, client_side, witness, size=1)
    peer.tls.write(b'hello')
    peer.push(size=1)
    net.tick_until(lambda: witness.received == b'hello')
    assert witness.events == ['active', 'read']


@pytest.mark.parametrize('drip', [b'', b'\x16\x03\x01\x02\x00\x01'])
def test_a_handshake_without_end_is_ended(net, server_side, drip):
    witness = Witness()
    channel, sock = net.channel(TlsHandler(server_side), witness)
    for number in range(10):
        net.clock.now += HANDSHAKE_TIMEOUT / 10 - 0.001
        sock.sendall(drip[number:number + 1])
        net.ticks(2)
    assert channel.is_open and witness.errors == []
    net.clock.now += 0.02
    net.ticks(2)
    assert 'no handshake in 10 s' in str(*witness.errors) and not channel.is_open
    net.clock.now += CLOSE_TIMEOUT
    net.ticks(2)
    assert channel.is_closed


def test_a_handshake_that_is_over_leaves_the_time_limit_without_effect(net, server_side, client_side):
    witness = Witness()
    channel, peer = secured(net, server_side, client_side, witness)
    net.clock.now += HANDSHAKE_TIMEOUT + 1
    net.ticks(2)
    assert channel.is_open and witness.errors == []


def test_a_closed_channel_is_forgotten_though_the_time_limit_stays_in_the_heap(net, server_side):
    made = []

    def initialize(channel):
        recorder = Recorder()
        made.append(weakref.ref(recorder))
        channel.pipeline.add_last(TlsHandler(server_side), recorder)

    listener = net.listen(initialize)
    with socket.create_connection(listener.address):
        net.tick_until(lambda: listener.channels)
        listener.channels.copy().pop().abort()
    net.ticks(2)
    gc.collect()
    assert made[0]() is None


def test_the_connection_may_end_in_the_handshake(net, server_side):
    witness = Witness(INPUT_ENDED)
    channel, sock = net.channel(TlsHandler(server_side), witness)
    sock.sendall(b'\x16\x03')
    sock.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: channel.is_closed)
    assert witness.events == ['active', INPUT_ENDED, 'inactive']


# Who does not speak TLS, or cannot be trusted ........................................................

@pytest.mark.parametrize('data', [b'\x12\x34\x56\x78\x01\x01\x01\0\0\0\x02{}', b'GET / HTTP/1.1\r\n\r\n'])
def test_a_plain_client_on_a_tls_port_is_one_clear_line(net, server_side, data, caplog):
    caplog.set_level(logging.INFO)
    channel, sock = net.channel(TlsHandler(server_side))  # nobody handles the error: the tail does
    sock.sendall(data)
    net.tick_until(lambda: not channel.is_open)
    net.read(sock)
    sock.close()
    net.tick_until(lambda: channel.is_closed)
    assert len(caplog.records) == 1 and errors_in(caplog) == []
    assert '\n' not in caplog.text.strip() and 'TLS' in caplog.text and '_ssl.c' not in caplog.text


def test_a_tls_client_on_a_plain_port_is_one_clear_line(net, client_side):
    witness = Witness()
    channel, sock = net.channel(TlsHandler(client_side, 'localhost'), witness)
    sock.sendall(b'who are you?')
    net.tick_until(lambda: witness.errors)
    assert len(witness.errors) == 1 and '_ssl.c' not in str(witness.errors[0]) and '(' not in str(witness.errors[0])


@pytest.mark.parametrize('name, expected', [('example.org', 'ostname mismatch'), ('127.0.0.2', 'address mismatch')])
def test_a_certificate_for_somebody_else_is_refused(net, server_side, client_side, name, expected):
    witness = Witness()
    channel, sock = net.channel(TlsHandler(client_side, name), witness)
    channel.write(b'a secret')
    peer = Blocking(sock, server_side, lambda tls: receive(tls, 8), server_side=True)
    assert isinstance(peer.end(net), (ssl.SSLError, bytes)) and peer.result != b'a secret'
    net.tick_until(lambda: channel.is_closed)
    [error] = witness.errors
    assert expected in str(error) and isinstance(error, ssl.SSLCertVerificationError)


def test_a_certificate_that_nobody_vouches_for_is_refused_and_the_server_hears_why(net, server_side, other_files):
    witness, other = Witness(), ssl.create_default_context(cafile=str(other_files[0]))
    channel, sock = net.channel(TlsHandler(server_side), witness)
    peer = Blocking(sock, other, server_hostname='localhost')
    assert isinstance(peer.end(net), ssl.SSLCertVerificationError)
    net.tick_until(lambda: witness.errors)
    assert 'alert unknown ca' in str(witness.errors[0])  # the alert of the peer


def test_the_alert_goes_out_before_the_close(net, server_side, other_files):
    other = ssl.create_default_context(cafile=str(other_files[0]))
    channel, sock = net.channel(TlsHandler(other, 'localhost'), witness := Witness())
    refused = Blocking(sock, server_side, lambda tls: tls.recv(1), server_side=True).end(net)
    assert isinstance(refused, ssl.SSLError) and 'ALERT' in refused.reason and len(witness.errors) == 1


# The end .............................................................................................

def test_a_goodbye_and_then_the_end_of_file_are_one_end(net, server_side, client_side):
    witness = Witness()
    channel, peer = secured(net, server_side, client_side, witness)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.push()
    net.tick_until(lambda: INPUT_ENDED in witness.events)
    peer.sock.sendall(b'what follows is none of our business')
    peer.sock.shutdown(socket.SHUT_WR)
    net.ticks(20)
    assert witness.events == ['active', INPUT_ENDED] and channel.is_open
    assert net.loop.selector.select(0) == []  # and it costs nothing
    channel.close()
    net.tick_until(lambda: channel.is_closed)


def test_after_the_peers_goodbye_it_can_still_be_answered(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, witness := Witness())
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.push()
    net.tick_until(lambda: INPUT_ENDED in witness.events)
    channel.write(b'answer')
    channel.close()
    peer.incoming.write(net.read(peer.sock))
    assert peer.tls.read(100) == b'answer'


def test_an_end_without_goodbye_is_an_end(net, server_side, client_side):
    witness = Witness()
    channel, peer = secured(net, server_side, client_side, witness)
    peer.sock.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: INPUT_ENDED in witness.events)
    net.ticks(3)
    assert witness.errors == [] and witness.events.count(INPUT_ENDED) == 1


def test_close_says_goodbye_after_what_is_buffered(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, Witness())
    channel.write(b'bye')
    channel.close()
    channel.close()
    peer.incoming.write(net.read(peer.sock))
    assert peer.tls.read(100) == b'bye' and peer.tls.read(100) == b''
    peer.sock.close()
    net.tick_until(lambda: channel.is_closed)


@pytest.mark.parametrize('start', [b'', b'\x16\x03\x01'], ids=['before', 'in'])
def test_close_before_the_end_of_the_handshake_drops_what_waits_and_does_not_linger(net, server_side, start, caplog):
    channel, sock = net.channel(TlsHandler(server_side), witness := Witness())
    sock.sendall(start)
    net.ticks(2)
    channel.write(b'never encrypted')
    channel.close()
    net.ticks(2)
    assert net.read(sock) == b'' and channel.buffered == 0
    sock.close()
    net.tick_until(lambda: channel.is_closed)
    net.clock.now += HANDSHAKE_TIMEOUT
    net.ticks(2)
    assert witness.events == ['active', 'inactive'] and errors_in(caplog) == []


def test_what_is_written_after_close_does_not_keep_the_channel(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, Witness())
    channel.close()
    channel.write(b'too late')
    assert channel.buffered < 100
    net.read(peer.sock)
    peer.sock.close()
    net.tick_until(lambda: channel.is_closed)


def test_abort_in_the_middle_of_everything_harms_nobody(net, server_side, client_side, caplog):
    channel, peer = secured(net, server_side, client_side, witness := Witness())
    channel.write(b'x')
    channel.abort()
    channel.write(b'y')
    net.ticks(3)
    assert channel.is_closed and witness.events == ['active', 'inactive'] and errors_in(caplog) == []


def test_a_handler_that_closes_in_the_middle_of_a_burst_hears_no_more(net, server_side, client_side, caplog):
    class Closer(Witness):
        def channel_read(self, message):
            super().channel_read(message)
            self.channel.close()

    channel, peer = secured(net, server_side, client_side, closer := Closer())
    for _ in range(3):
        peer.tls.write(bytes(1000))
    peer.push()
    net.tick_until(lambda: not channel.is_open)
    net.ticks(3)
    assert closer.events == ['active', 'read', 'inactive'] and errors_in(caplog) == []


def test_a_burst_is_one_read_so_a_pause_inside_it_comes_too_late_as_without_tls(net, server_side, client_side):
    class Pauser(Witness):
        def channel_read(self, message):
            super().channel_read(message)
            self.channel.pause_reading('enough')

    channel, peer = secured(net, server_side, client_side, pauser := Pauser())
    for _ in range(3):
        peer.tls.write(bytes(1000))
    peer.push()
    net.tick_until(lambda: pauser.received)
    net.ticks(3)
    assert len(pauser.received) == 3000 and pauser.events == ['active', 'read']


def test_garbage_in_the_middle_is_one_error_though_more_follows(net, server_side, client_side):
    class Deaf(Recorder):  # does not close at once
        errors = Witness.errors

    channel, peer = secured(net, server_side, client_side, deaf := Deaf())
    peer.tls.write(b'good')
    peer.push()
    for _ in range(3):
        peer.sock.sendall(b'\x17\x03\x03\0\x20' + bytes(32))
        net.ticks(3)
    channel.write(b'an answer that cannot be encrypted any more')
    net.ticks(3)
    peer.sock.shutdown(socket.SHUT_WR)
    net.ticks(20)
    assert deaf.received == b'good' and len(deaf.errors) == 1 and INPUT_ENDED not in deaf.events
    channel.close()
    net.tick_until(lambda: channel.is_closed)
    assert channel.buffered == 0


def test_an_error_while_encrypting_ends_this_channel_alone(net, server_side, client_side, caplog):
    """OpenSSL has none for us without a bug: what goes wrong with the peer shows when it is read."""
    channel, peer = secured(net, server_side, client_side, Witness())
    other, other_peer = net.channel(echo())
    tls = channel.pipeline.head._next_channel_read
    tls._tls = type('Broken', (), {'write': lambda self, data: 1 / 0})()
    channel.write(b'x')
    net.ticks(2)
    other_peer.sendall(b'fine')
    assert net.read(other_peer, 4) == b'fine' and channel.is_closed and len(errors_in(caplog)) == 1


# Writing .............................................................................................

def test_many_writes_of_a_tick_are_one_send_and_the_next_tick_sleeps(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, Witness())
    channel._socket.sends.clear()
    for number in range(1000):
        channel.write(b'%03d,' % number)
    assert channel.buffered == 4000
    waits = net.waits()
    net.loop.tick()
    assert len(channel._socket.sends) == 1 and 4000 < channel._socket.sends[0] < 4100 and channel.buffered == 0
    net.loop.tick()
    assert waits[0] == 0 and waits[-1] > 0
    assert peer.ask(peer.tls.read, 1 << 16) == b''.join(b'%03d,' % number for number in range(1000))


def test_the_water_marks_count_what_is_not_encrypted_yet(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, witness := Witness())
    channel._socket.limit = 0
    channel.write(bytes(HIGH_WATER_MARK))
    assert channel.is_writable
    channel.write(b'x')
    assert not channel.is_writable and channel.buffered == HIGH_WATER_MARK + 1
    net.ticks(3)
    assert witness.events == ['active', 'not writable']


def test_a_flood_to_who_does_not_read_is_not_writable_and_arrives_whole_in_the_end(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, witness := Witness())
    data = random.Random(4).randbytes(LARGE)
    for start in range(0, LARGE, 10_000):
        channel.write(data[start:start + 10_000])
        net.ticks(1)
    assert not channel.is_writable and channel.buffered > HIGH_WATER_MARK
    channel.close()
    peer.incoming.write(net.read(peer.sock))
    assert b''.join(iter(lambda: peer.tls.read(1 << 16), b'')) == data


def test_an_empty_channel_counts_nothing(net, server_side, client_side):
    channel, peer = secured(net, server_side, client_side, echo())
    for _ in range(20):
        peer.tls.write(bytes(100))
        peer.push()
        peer.ask(peer.tls.read, 100)
    assert channel.buffered == 0 and net.loop.selector.select(0) == []


# What the handlers of a flush may do .................................................................

def test_a_flush_that_failed_once_and_was_forgiven_does_not_silence_the_channel(net):
    failures = [ValueError('once')]

    class Flaky(Handler):
        def flush(self):
            if failures:
                raise failures.pop()
            super().flush()

    channel, peer = net.channel(Flaky(), handler(exception_caught=lambda self, error: None))
    channel.write(b'first, ')
    net.ticks(2)
    channel.write(b'second')
    assert net.read(peer, 13) == b'first, second'
