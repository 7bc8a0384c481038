"""TLS: the server and the client as people run them, Python's own blocking `ssl` socket, and peers that do it wrong."""
import os
import socket
import ssl
import subprocess
import sys

import pytest

import protocol
import reactor
from certificates import OTHER, write_certificates
from peers import World
from processes import PATIENCE, ROOT, Process
from protocol import (
    CreateGroupRequest, CreateGroupResponse, HeartbeatRequest, HeartbeatResponse, ListUsersRequest, ListUsersResponse,
    LoginRequest, LoginResponse, MessageAck, MessageRequest, MessageResponse)

pytestmark = pytest.mark.usefixtures('no_coverage')


class SecurePeer:
    """A blocking client on Python's ssl."""

    def __init__(self, port, ca, version=None):
        context = ssl.create_default_context(cafile=ca)
        if version:
            context.minimum_version = context.maximum_version = version
        plain = socket.create_connection(('127.0.0.1', port), timeout=PATIENCE)
        self.socket = context.wrap_socket(plain, server_hostname='localhost')
        self.decoder = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)

    def ask(self, packet, kind):
        self.socket.sendall(protocol.encode(packet, 2))
        frames = iter(self.decoder)
        while not (frame := next(frames, None)):
            data = self.socket.recv(65536)
            assert data, 'closed'
            self.decoder.feed(data)
            frames = iter(self.decoder)
        packet = protocol.decode(frame)
        assert type(packet) is kind, packet
        return packet


@pytest.fixture
def secure(system, tmp_path):
    certificate, key = write_certificates(tmp_path)
    server = system.server('--tls-cert', str(certificate), '--tls-key', str(key))
    server.ca = str(certificate)
    return server


def errors_of(server):
    return server.errors.read_text(encoding='utf-8')


def said_until(server, line, *options):
    """Start a client that would try again and again; end it once it says `line`."""
    process = Process(['imclient.py', '--user', 'alice', '--port', str(server.port), '--password', 'pw', *options],
                      server.errors.parent / 'client.err')
    try:
        return process.expect(line)
    finally:
        process.end()


def client(server, *options, name='alice', text=''):
    return subprocess.run(
        [sys.executable, 'imclient.py', '--user', name, '--port', str(server.port), '--password', 'pw', *options],
        cwd=ROOT, input=text, capture_output=True, encoding='utf-8', timeout=60)


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pythons_own_socket_chats_and_both_say_goodbye(secure, version, figure):
    peer = SecurePeer(secure.port, secure.ca, version)
    assert peer.ask(LoginRequest(user_name='alice', password='pw'), LoginResponse).success
    for number in range(20):
        text = str(number) * 4_000 if number < 10 else 'x' * 4_000
        request = MessageRequest(to_user_id='alice', message=text, client_seq=number + 1)
        peer.ask(request, protocol.MessageAck)
        assert peer.ask(HeartbeatRequest(), MessageResponse).message == text
        frames = iter(peer.decoder)
        while not next(frames, None):
            peer.decoder.feed(peer.socket.recv(65536))
            frames = iter(peer.decoder)
    plain = peer.socket.unwrap()  # sends close_notify, and waits for the server's
    assert plain.recv(1) == b''
    plain.close()
    figure(f'{peer.socket.version() or version.name}: a chat, and close_notify both ways')


def test_the_oldest_version_is_refused(secure):
    context = ssl.create_default_context(cafile=secure.ca)
    context.options &= ~ssl.OP_NO_TLSv1_1
    context.set_ciphers('ALL:@SECLEVEL=0')
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(('127.0.0.1', secure.port), timeout=PATIENCE) as plain:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname='localhost')


def test_our_client_and_our_server(secure):
    result = client(secure, '--tls-ca', secure.ca, text='/msg alice over TLS\n')
    assert 'over TLS' in result.stdout and result.returncode == 0, result
    result = client(secure, '--tls', '--tls-ca', secure.ca, '--host', 'localhost')
    assert 'logged in as alice' in result.stdout and result.returncode == 0, result


def test_our_client_refuses_a_certificate_that_nobody_vouches_for(secure, tmp_path):
    (tmp_path / 'other').mkdir()
    other, _ = write_certificates(tmp_path / 'other', OTHER)
    for options in (['--tls'], ['--tls-ca', str(other)]):
        result = client(secure, *options)
        assert result.returncode == 2 and 'logged in' not in result.stdout
        assert result.stderr.count('\n') == 1
        assert 'self-signed certificate' in result.stderr.replace('self signed', 'self-signed')


def test_our_client_refuses_a_certificate_for_another_name(secure):
    result = client(secure, '--tls-ca', secure.ca, '--host', '127.1')
    assert result.returncode == 2 and 'mismatch' in result.stderr, result


def test_a_plain_client_on_a_tls_port(secure):
    said_until(secure, '.*before a word: with --tls.')
    assert errors_of(secure).count('closed: TLS') >= 1


def test_a_tls_client_on_a_plain_port(system):
    server = system.server()
    said_until(server, '.*before a word: is it one with TLS.', '--tls')
    assert errors_of(server).count('closed: a frame begins with') >= 1


@pytest.mark.parametrize('options, word', [
    (['--tls-key', 'key.pem'], '--tls-cert'), (['--tls-cert', 'missing.pem'], 'No such file'),
    (['--tls-cert', 'README.md'], 'README.md')])
def test_certificates_that_cannot_be_used(system, options, word):
    process = system.run('imserver.py', '--port', '0', '--db', ':memory:', *options)
    assert process.wait() == 2
    text = process.errors.read_text(encoding='utf-8')
    assert text.count('\n') == 1 and word in text


def test_an_authority_that_cannot_be_read(system):
    server = system.server()
    result = client(server, '--tls-ca', 'missing.pem')
    assert result.returncode == 2 and result.stderr == 'imclient.py: cannot use missing.pem: No such file or directory\n'


# The handler, with made-up clocks ....................................................................

@pytest.fixture
def tls_world(tmp_path):
    certificate, key = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    world = World(':memory:')
    world.server._tls, world.ca = context, certificate
    yield world
    world.close()


class MemoryPeer:
    """A TLS client in memory, whose bytes go over a plain peer of the world."""

    def __init__(self, world):
        self.peer, self.incoming, self.outgoing = world.connect(), ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(world.ca))
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname='localhost')

    def pull(self):
        self.peer.world.settle()
        try:
            self.incoming.write(self.peer.socket.recv(1 << 20))
        except BlockingIOError:
            pass

    def push(self, size=None):
        data = self.outgoing.read()
        size = size or len(data) or 1
        for start in range(0, len(data), size):
            self.peer.send_bytes(data[start:start + size])
            self.peer.world.settle()

    def handshake(self, size=None):
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.push(size)
                self.pull()
            else:
                return self.push(size)
        raise AssertionError('no end to the handshake')


def test_a_handshake_and_a_login_byte_by_byte(tls_world):
    peer = MemoryPeer(tls_world)
    peer.handshake(size=1)
    peer.tls.write(protocol.encode(LoginRequest(user_name='alice', password='pw'), 2))
    peer.push(size=1)
    tls_world.pump(lambda: 'alice' in tls_world.server.sessions, lambda: 'not logged in')


def test_close_notify_behind_requests_leaves_none_of_them_unanswered(tls_world):
    """Those that wait for a commit are answered before the end is looked at, as without TLS."""
    peer, decoder = MemoryPeer(tls_world), protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)
    peer.handshake()
    for packet in (LoginRequest(user_name='alice', password='pw'), CreateGroupRequest(user_id_list=[], client_seq=1),
                   MessageRequest(to_user_id='alice', message='x', client_seq=2), ListUsersRequest()):
        peer.tls.write(protocol.encode(packet, 2))
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.push()
    peer.pull()
    with pytest.raises(ssl.SSLZeroReturnError):  # close_notify
        while True:
            decoder.feed(peer.tls.read(1 << 16))
    assert [type(protocol.decode(frame)) for frame in decoder] == [
        LoginResponse, CreateGroupResponse, MessageAck, ListUsersResponse, MessageResponse]


@pytest.mark.parametrize('start', [b'', b'\x16', b'\x16\x03\x01\x02\x00\x01'])
def test_a_handshake_that_does_not_end_is_ended(tls_world, start, caplog):
    peer = tls_world.connect()
    peer.send_bytes(start)
    tls_world.pass_time(reactor.HANDSHAKE_TIMEOUT - 0.1)
    assert peer.channel.is_open
    caplog.set_level('INFO')
    tls_world.pass_time(0.1)
    assert not (peer.channel and peer.channel.is_open)
    assert 'no handshake in 10 s' in caplog.text


def test_what_waits_to_be_encrypted_counts(tls_world):
    peer = MemoryPeer(tls_world)
    peer.handshake()
    tls_world.settle()
    channel = peer.peer.channel
    channel.write(b'x' * (reactor.HIGH_WATER_MARK + 1))
    assert channel.buffered > reactor.HIGH_WATER_MARK
    tls_world.loop.tick(0)
    tls_world.settle()
    assert channel.is_writable and not channel.buffered


def test_many_writes_of_a_tick_are_one_send(tls_world, monkeypatch):
    peer = MemoryPeer(tls_world)
    peer.handshake()
    tls_world.settle()
    channel, sends = peer.peer.channel, []
    send = reactor.Channel._send
    monkeypatch.setattr(reactor.Channel, '_send', lambda self: sends.append(self) or send(self))
    for _ in range(100):
        channel.write(protocol.encode(HeartbeatResponse(), 2))
    tls_world.settle()
    assert sends.count(channel) == 1


def test_what_follows_garbage_in_a_handshake_is_an_alert_and_the_end(tls_world, caplog):
    caplog.set_level('INFO')
    peer = tls_world.connect()
    peer.send_bytes(b'\x12\x34\x56\x78' + b'\0' * 40)
    tls_world.settle()
    assert not (peer.channel and peer.channel.is_open)
    assert 'closed: TLS: wrong version number' in caplog.text and 'Traceback' not in caplog.text


def test_logs_of_a_process_name_no_bug(secure):
    for data in (b'', b'\x16', b'GET / HTTP/1.1\r\n\r\n', b'\x16\x03\x01\xff\xff' + b'x' * 1000):
        with socket.create_connection(('127.0.0.1', secure.port), timeout=PATIENCE) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1000):
                pass
    assert 'bug' not in errors_of(secure)
    peer = SecurePeer(secure.port, secure.ca)
    assert peer.ask(HeartbeatRequest(), HeartbeatResponse)
    peer.socket.close()


def test_what_breaks_tls_in_a_running_session_is_a_loss_and_the_client_comes_back(tmp_path):
    """Only a handshake that fails is a reason to give up."""
    certificate, key = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(PATIENCE)
        process = Process(['imclient.py', '--user', 'alice', '--port', str(listener.getsockname()[1]), '--password', 'pw',
                           '--tls-ca', str(certificate), '--host', 'localhost'], tmp_path / 'client.err')
        try:
            for _ in range(2):
                with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
                    sock.recv(4096)
                    sock.sendall(protocol.encode(LoginResponse(success=True, user_name='alice', log_id='x'), 2))
                    process.expect('-- logged in as alice.*')
                    with socket.socket(fileno=os.dup(sock.fileno())) as plain:
                        plain.sendall(b'this is no record of TLS')
                    process.expect('-- disconnected: TLS: .*')
                    process.expect('.*connecting again in .*')
        finally:
            process.end()
