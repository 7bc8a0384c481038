"""The whole system: the server, clients and databases as people run them, each in a process of its own.

In order: chats at the terminal; peers of version 1; kill -9; frames in pieces; what idling and waiting cost; limits
and stopping; databases; the client as a library.
"""
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time

import pytest

import imclient
import protocol
from processes import PATIENCE, ROOT, ids, messages, pipeline, texts, wait_until
from protocol import (
    CreateGroupRequest, CreateGroupResponse, DeliveryAck, ErrorResponse, GroupMessageRequest, GroupMessageResponse,
    GroupNotice, HeartbeatRequest, HeartbeatResponse, HistoryRequest, HistoryResponse, JoinGroupRequest,
    JoinGroupResponse, LoginRequest, LoginResponse, MessageAck, MessageRequest, MessageResponse, QuitGroupRequest,
    QuitGroupResponse, encode)

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='kill -9 and SIGTERM')
proc_only = pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='there is no /proc')


# Chats at the terminal ...............................................................................

def test_a_single_chat(system):
    system.server()
    system.register('bob')
    alice = system.terminal('alice')
    alice.write('sendToUser bob hello')  # the tutorial's name of the command
    alice.expect('you -> bob: hello')
    bob = system.terminal('bob')
    bob.expect('alice: hello')
    bob.write('/msg alice 你好, Alice')
    alice.expect('bob: 你好, Alice')
    alice.write('/chat bob', 'how are you?')
    alice.expect(r'you -> bob: how are you\?')
    bob.expect(r'alice: how are you\?')
    bob.write('/msg alice fine')
    bob.expect('you -> alice: fine')
    alice.expect('bob: fine')
    assert alice.said() == ['you -> bob: hello', 'bob: 你好, Alice', 'you -> bob: how are you?', 'bob: fine']
    assert bob.said() == ['alice: hello', 'you -> alice: 你好, Alice', 'alice: how are you?',
                          'you -> alice: fine']
    alice.write('/exit')
    assert alice.wait() == 0
    bob.popen.stdin.close()
    assert bob.wait() == 0
    for name in 'alice', 'bob':
        assert system.peer(name).is_quiet()  # they have acknowledged what they have shown


def test_logging_out_and_in_again(system):
    system.server()
    alice, bob = system.terminal('alice'), system.terminal('bob')
    alice.write('logout')
    alice.expect('-- logged out')
    bob.write('/users', '/msg alice are you there?')
    bob.expect(r'-- users: you, alice \(offline\)')
    bob.expect(r'you -> alice: are you there\?')
    alice.write('/msg bob yes')
    alice.expect('! not_logged_in: log in first')
    alice.write('/login alice')
    alice.expect('-- logged in as alice, protocol version 2')
    alice.expect(r'bob: are you there\?')
    alice.write('/msg bob now', '/exit')
    bob.expect('alice: now')
    assert bob.said() == ['you -> alice: are you there?', 'alice: now']
    assert alice.wait() == 1  # one command was refused
    assert alice.said()[1:] == ['bob: are you there?', 'you -> bob: now']


def test_the_password_counts(system):
    server = system.server()
    system.register('alice')
    stranger = system.run('imclient.py', '--port', str(server.port), '--user', 'alice',
                          '--password', 'guess')
    stranger.expect('! login failed: wrong_password: .*')
    assert stranger.wait() == 1


def test_a_group_chat(system):
    system.server()
    system.register('bob')
    alice, bob, carol = people = [system.terminal(name) for name in ('alice', 'bob', 'carol')]
    alice.write('createGroup bob')
    group = alice.expect('-- group #([0-9a-f]{8}) created with alice, bob')[1]
    bob.expect(f'-- group #{group} created with alice, bob')
    carol.write(f'joinGroup {group}')
    carol.expect(f'-- you joined group #{group}')
    for member in alice, bob:
        member.expect(f'-- carol joined group #{group}')
    for n, (writer, name) in enumerate(zip(people, ('alice', 'bob', 'carol'))):
        writer.write(f'/group {group} line {n}')
        for reader in people:
            who = 'you' if reader is writer else name
            reader.expect(f'#{group} {who}: line {n}')
    carol.write(f'quitGroup {group}')
    carol.expect(f'-- you left group #{group}')
    for member in alice, bob:
        member.expect(f'-- carol left group #{group}')
    alice.write(f'/group {group} carol has gone')
    alice.expect(r'.*you: carol has gone')
    bob.expect(r'.*alice: carol has gone')
    carol.write('/users')
    carol.expect('-- users: .*')
    created = f'-- group #{group} created with alice, bob'
    joined, left = f'-- carol joined group #{group}', f'-- carol left group #{group}'
    lines = [[re.sub(f'^#{group} ', '', line) for line in person.lines[2:]] for person in people]
    assert lines == [
        [created, joined, 'you: line 0', 'bob: line 1', 'carol: line 2', left, 'you: carol has gone'],
        [created, joined, 'alice: line 0', 'you: line 1', 'carol: line 2', left, 'alice: carol has gone'],
        [f'-- you joined group #{group}', 'alice: line 0', 'bob: line 1', 'you: line 2',
         f'-- you left group #{group}', '-- users: alice, bob, you']]


def test_clients_and_groups_survive_a_restart(system):
    server = system.server()
    system.register('bob')
    alice, bob, carol = people = [system.terminal(name) for name in ('alice', 'bob', 'carol')]
    alice.write('/create bob carol')
    group = alice.expect('-- group #([0-9a-f]{8}) created with alice, bob, carol')[1]
    carol.write(f'/quit {group}')
    carol.expect(f'-- you left group #{group}')
    server.kill()
    alice.expect('-- disconnected: .*')
    alice.write(f'/group {group} written while there was no server')
    server.start()
    for person in people:
        person.expect('-- logged in as .*')
    bob.expect(r'.*alice: written while there was no server')
    bob.write(f'/members {group}')
    bob.expect(f'-- group #{group} has alice, you')
    carol.write(f'/members {group}')
    carol.expect('! not_a_member: .*')
    assert bob.lines.count(f'-- group #{group} created with alice, bob, carol') == 1
    assert carol.said() == ['! not_a_member: you are not in this group (LIST_GROUP_MEMBERS_REQUEST)']


# Peers of version 1 ..................................................................................

def golden(command, body):
    """The frame with which a server of version 1 says `body`."""
    data = body.encode('utf-8')
    return bytes.fromhex('12345678 01 01') + bytes([command]) + len(data).to_bytes(4, 'big') + data


def group_golden(group, name, text):
    """The frame of what a member says."""
    return golden(16, f'{{"fromGroupId":"{group}","fromUser":{{"userId":"{name}","userName":"{name}"}},'
                      f'"message":"{text}"}}')


def asked(peer, command, body):
    """Send a frame as the tutorial's Java client does, and return the next one that comes."""
    peer.socket.sendall(golden(command, body))
    return peer.frame()


def test_version_1_beside_version_2_in_a_chat(system):
    system.server()
    lisi, zhangsan, alice = system.peer(version=1), system.peer(version=1), system.peer('alice')
    assert asked(lisi, 1, '{"password":"pwd","userName":"李四"}') == golden(
        2, '{"success":true,"userId":"李四","userName":"李四"}')
    assert asked(zhangsan, 1, '{"password":"pwd","userName":"zhangsan"}') == bytes.fromhex(
        '12345678 01 01 02 0000003a') + b'{"success":true,"userId":"zhangsan","userName":"zhangsan"}'
    zhangsan.socket.sendall(golden(3, '{"message":"hi","toUserId":"李四"}'))
    assert lisi.frame() == golden(4, '{"fromUserId":"zhangsan","fromUserName":"zhangsan","message":"hi"}')
    zhangsan.socket.sendall(golden(3, '{"message":"hi","toUserId":"alice"}'))
    assert alice.expect(MessageResponse).from_user_id == 'zhangsan'
    text = 'a "b"\\\n é \U0001f600'
    alice.ask(alice.numbered(MessageRequest, to_user_id='zhangsan', message=text), MessageAck)
    assert zhangsan.frame() == golden(
        4, '{"fromUserId":"alice","fromUserName":"alice","message":"a \\"b\\"\\\\\\n é \U0001f600"}')
    assert asked(zhangsan, 3, '{"message":"hi","toUserId":"nobody"}') == golden(
        4, '{"fromUserId":"server","fromUserName":"server","message":"there is no user nobody"}')
    assert asked(zhangsan, 17, '{}') == bytes.fromhex('12345678 01 01 12 00000002') + b'{}'
    assert asked(zhangsan, 25, '{}') == golden(
        4, '{"fromUserId":"server","fromUserName":"server","message":"there is no command 25 here"}')
    assert asked(zhangsan, 5, '{}') == golden(6, '{"success":true}')
    assert asked(zhangsan, 1, '{"password":"?","userName":"李四"}') == golden(
        2, '{"reason":"that is not the password of this name","success":false,'
           '"userName":"李四"}')
    assert asked(zhangsan, 1, '{"password":"pwd","userName":"李四"}') == golden(
        2, '{"success":true,"userId":"李四","userName":"李四"}')
    assert lisi.frame() == golden(
        4, '{"fromUserId":"server","fromUserName":"server","message":"logged in elsewhere"}')
    assert lisi.frame() == b''


def test_version_1_beside_version_2_in_a_group(system):
    system.server()
    system.register('carol')
    lisi, zhangsan = (system.peer(name, 1, 'pwd') for name in ('lisi', 'zhangsan'))
    alice = system.peer('alice')
    created = asked(zhangsan, 7, '{"userIdList":["alice","lisi","nobody"]}')
    group = alice.expect(CreateGroupResponse).group_id
    assert created == lisi.frame() == golden(
        8, f'{{"groupId":"{group}","success":true,"userNameList":["alice","lisi","zhangsan"]}}')
    carol = system.peer('carol')
    carol.ask(carol.numbered(JoinGroupRequest, group_id=group), JoinGroupResponse)
    joined = group_golden(group, 'carol', 'joined the group')
    assert [lisi.frame(), zhangsan.frame()] == [joined, joined]
    assert alice.expect(GroupNotice).event == 'joined'
    alice.ask(alice.numbered(GroupMessageRequest, to_group_id=group, message='hi'), MessageAck)
    said = group_golden(group, 'alice', 'hi')
    assert [lisi.frame(), zhangsan.frame()] == [said, said]
    echo = group_golden(group, 'lisi', 'ho')
    assert asked(lisi, 15, f'{{"message":"ho","toGroupId":"{group}"}}') == zhangsan.frame() == echo
    for peer in alice, carol:
        assert texts(peer.expect_all(GroupMessageResponse, 2)) == ['hi', 'ho']
    assert asked(lisi, 9, f'{{"groupId":"{group}"}}') == golden(
        10, f'{{"groupId":"{group}","sessionList":[' + ','.join(
            f'{{"userId":"{name}","userName":"{name}"}}'
            for name in ('alice', 'carol', 'lisi', 'zhangsan')) + ']}')
    the_group, done = f'{{"groupId":"{group}"}}', f'{{"groupId":"{group}","success":true}}'
    assert asked(lisi, 13, the_group) == golden(14, done)
    assert asked(lisi, 13, the_group) == golden(
        14, f'{{"groupId":"{group}","reason":"you are not in this group","success":false}}')
    assert zhangsan.frame() == group_golden(group, 'lisi', 'left the group')
    assert alice.expect(GroupNotice).event == carol.expect(GroupNotice).event == 'left'
    assert asked(lisi, 11, the_group) == golden(12, done)
    assert zhangsan.frame() == group_golden(group, 'lisi', 'joined the group')
    for peer in zhangsan, lisi:
        assert peer.is_quiet()


def test_version_1_gets_each_message_once_after_a_stop(system):
    server = system.server()
    system.register('alice')
    lisi = system.peer('lisi', 1, 'pwd')
    alice = system.peer('alice')
    pipeline(alice, messages('lisi', 300))
    assert texts(lisi.expect_all(MessageResponse, 300)) == [f'message {n}' for n in range(1, 301)]
    server.terminate()
    server.start()
    lisi = system.peer('lisi', 1, 'pwd')
    assert lisi.is_quiet()


# kill -9 .............................................................................................

def test_what_was_acknowledged_survives_two_kills(system):
    server, count, handled = system.server(), 10_000, 4_000
    system.register('bob')
    acks = pipeline(system.peer('alice'), messages('bob', count))
    server.kill()
    server.start()
    bob = system.peer('bob')
    first = bob.expect_all(MessageResponse, handled)
    before = server.written()
    bob.send(DeliveryAck(message_id=first[-1].message_id))
    wait_until(lambda: server.written() != before, 'the acknowledgement is written', 3)  # promised: 1 s
    assert system.peer().is_quiet()  # that tick is over
    server.kill()
    server.start()
    bob = system.peer('bob')
    received = first + bob.expect_all(MessageResponse, count - handled)
    assert texts(received) == [f'message {n}' for n in range(1, count + 1)]
    assert ids(received) == ids(acks) == sorted(set(ids(acks)))
    assert [packet.sent_at for packet in received] == [ack.sent_at for ack in acks]
    assert [ack.client_seq for ack in acks] == list(range(1, count + 1))
    assert bob.is_quiet()
    assert system.peer('alice').seq == count


@pytest.mark.parametrize('killed', ['server', 'sender'])
def test_a_kill_in_the_middle_of_sending(system, killed):
    server, requests = system.server(), messages('bob', 4_000)
    system.register('bob')
    alice = system.peer('alice')
    alice.send(*requests)
    acks = alice.expect_all(MessageAck, 300)
    if killed == 'server':
        server.kill()
        acks += alice.rest()
        server.start()
    else:
        alice.reset()
    alice = system.peer()
    seq = alice.login('alice').last_client_seq
    assert seq >= len(acks)
    again = pipeline(alice, requests)
    assert again[:len(acks)] == acks
    bob = system.peer('bob')
    received = bob.expect_all(MessageResponse, len(requests))
    assert texts(received) == texts(requests)
    assert ids(received) == ids(again)
    assert bob.is_quiet()


def test_membership_that_was_answered_survives_a_kill(system):
    server = system.server()
    system.register('bob')
    alice = system.peer('alice')
    create = alice.numbered(CreateGroupRequest, user_id_list=['bob'])
    created = alice.ask(create, CreateGroupResponse)
    carol = system.peer('carol')
    join = carol.numbered(JoinGroupRequest, group_id=created.group_id)
    assert carol.ask(join, JoinGroupResponse).success
    server.kill()
    server.start()
    alice, bob, carol = (system.peer(name) for name in ('alice', 'bob', 'carol'))
    assert carol.ask(join, JoinGroupResponse).success  # a repeat, answered again
    assert alice.expect(GroupNotice).event == 'joined'
    assert bob.expect(CreateGroupResponse).user_name_list == ['alice', 'bob']
    assert bob.expect(GroupNotice).user.user_id == 'carol'
    assert alice.ask(create, CreateGroupResponse).group_id == created.group_id
    server.kill()
    server.start()
    carol = system.peer('carol')
    quit_it = carol.numbered(QuitGroupRequest, group_id=created.group_id)
    assert carol.ask(quit_it, QuitGroupResponse).success
    server.kill()
    server.start()
    alice, carol = system.peer('alice'), system.peer('carol')
    assert [notice.event for notice in alice.expect_all(GroupNotice, 2)] == ['joined', 'left']
    alice.ask(alice.numbered(GroupMessageRequest, to_group_id=created.group_id, message='hi'), MessageAck)
    assert carol.is_quiet()


# Frames in pieces ....................................................................................

def test_a_thousand_frames_in_one_send(system):
    system.server()
    alice = system.peer('alice')
    requests = messages('alice', 500)
    alice.send(*(packet for request in requests for packet in (request, HeartbeatRequest())))
    packets = [protocol.decode(alice.frame()) for _ in range(1500)]
    acks, received = ([p for p in packets if type(p) is kind] for kind in (MessageAck, MessageResponse))
    assert [ack.client_seq for ack in acks] == list(range(1, 501))
    assert ids(acks) == ids(received)
    assert texts(received) == texts(requests)
    assert sum(type(p) is HeartbeatResponse for p in packets) == 500
    assert alice.is_quiet()


def test_frames_in_pieces_get_the_same_answers(system):
    system.server()
    alice, other = system.peer('alice'), system.peer()
    to_nobody = MessageRequest(to_user_id='nobody', message='hi', client_seq=1)
    both = encode(to_nobody, 2) + encode(HeartbeatRequest(), 2)
    alice.socket.sendall(both)
    whole = [alice.frame(), alice.frame()]
    assert [type(protocol.decode(frame)) for frame in whole] == [ErrorResponse, HeartbeatResponse]
    pieces = [[both[:cut], both[cut:]] for cut in range(1, len(both))]
    pieces.append([both[n:n + 1] for n in range(len(both))])
    for cut in pieces:
        for piece in cut[:-1]:
            alice.socket.sendall(piece)
            assert other.is_quiet()  # the tick that answers this has read the piece, so it comes alone
        alice.socket.sendall(cut[-1])
        assert [alice.frame(), alice.frame()] == whole, cut
    assert alice.is_quiet()


# What idling and waiting cost ........................................................................

@proc_only
def test_an_idle_server_uses_no_cpu(system):
    server = system.server('--idle', '60')
    peers = [system.peer() for _ in range(200)]
    for n, peer in enumerate(peers):
        peer.send(LoginRequest(user_name=f'user{n}', password='secret'))
    for peer in peers:
        assert peer.expect(LoginResponse).success
    assert peers[0].is_quiet()
    ticks, switches = server.cpu_ticks(), server.status('voluntary_ctxt_switches')
    time.sleep(2)  # what is measured
    assert server.cpu_ticks() - ticks <= 2
    assert server.status('voluntary_ctxt_switches') - switches <= 3
    for peer in peers:
        assert peer.is_quiet()


@proc_only
def test_who_never_reads_costs_no_memory_and_loses_nothing(system):
    server, count, at_once = system.server(), 10_000, 250
    receiver = system.peer('receiver')
    senders = [system.peer(name) for name in ('alice', 'bob')]
    before = server.status('VmRSS')
    requests = messages('receiver', count, '{:05}' + 995 * 'x')
    for first in range(0, count, at_once):
        for sender in senders:
            sender.send(*requests[first:first + at_once])
        for sender in senders:
            sender.expect_all(MessageAck, at_once)
    assert server.status('VmHWM') - before < 16 * 1024  # KiB
    ticks = server.cpu_ticks()
    time.sleep(0.5)  # what is measured: waiting for the receiver is no work
    assert server.cpu_ticks() - ticks <= 5
    received = receiver.expect_all(MessageResponse, 2 * count)
    assert ids(received) == sorted(set(ids(received)))
    for name in 'alice', 'bob':
        assert [p.message for p in received if p.from_user_id == name] == texts(requests)
    assert receiver.is_quiet()
    assert server.status('VmHWM') - before < 16 * 1024


# Limits, and stopping ................................................................................

def test_limits_of_time_and_number(system):
    system.server('--idle', '1', '--login-timeout', '1', '--max-connections', '3')
    silent, alive = system.peer('silent'), system.peer('alive')
    began = time.monotonic()
    assert silent.is_quiet()
    nobody = system.peer()
    assert nobody.is_quiet()
    assert system.peer().has_ended(within=PATIENCE)  # the fourth
    while not nobody.has_ended(within=0.1):
        nobody.send(HeartbeatRequest())  # extends nothing
        assert alive.is_quiet()
        assert time.monotonic() - began < 3
    assert time.monotonic() - began > 0.9
    while not silent.has_ended(within=0.1):
        assert alive.is_quiet()
        assert time.monotonic() - began < 4
    assert time.monotonic() - began > 0.9
    for peer in silent, nobody:
        peer.socket.close()  # until then the server waits, for us to read what there may be
    assert alive.is_quiet()
    late = system.peer('late')  # there is room again
    late.ask(late.numbered(MessageRequest, to_user_id='alive', message='hi'), MessageAck)
    assert alive.expect(MessageResponse).message == 'hi'


def test_a_stop_under_load(system):
    server, count = system.server(), 5_000
    system.register('bob', 'carol')
    senders, bob = [system.peer(name) for name in ('alice', 'dave')], system.peer('bob')
    create = senders[0].numbered(CreateGroupRequest, user_id_list=['carol'])
    group = senders[0].ask(create, CreateGroupResponse)
    for sender in senders:
        sender.send(*messages('bob', count + 1)[1:])
    acks = [sender.expect_all(MessageAck, 200) for sender in senders]
    began = time.monotonic()
    server.terminate()
    assert time.monotonic() - began < 5
    for sender, own in zip(senders, acks):
        own += sender.rest()
    server.start()
    bob, carol = system.peer('bob'), system.peer('carol')
    assert carol.expect(CreateGroupResponse).group_id == group.group_id
    seqs = [system.peer(name).seq for name in ('alice', 'dave')]
    assert all(200 <= len(own) < seq for own, seq in zip(acks, seqs))
    received = bob.expect_all(MessageResponse, sum(seqs) - 2)  # each began with number 2
    assert ids(received) == sorted(set(ids(received)))
    for name, own, seq in zip(('alice', 'dave'), acks, seqs):
        mine = [packet for packet in received if packet.from_user_id == name]
        assert texts(mine) == [f'message {n}' for n in range(2, seq + 1)]
        assert ids(mine)[:len(own)] == ids(own)
    assert bob.is_quiet()


# Databases ...........................................................................................

def test_two_servers_cannot_have_one_database(system):
    server = system.server()
    alice = system.peer('alice')
    began = time.monotonic()
    second = subprocess.run([sys.executable, 'imserver.py', '--port', '0', '--db', server.database],
                            cwd=ROOT, capture_output=True, encoding='utf-8', timeout=PATIENCE)
    assert time.monotonic() - began < 2
    assert second.returncode == 2 and second.stdout == ''
    assert second.stderr.endswith('another program is using it\n') and second.stderr.count('\n') == 1
    alice.ask(alice.numbered(MessageRequest, to_user_id='alice', message='unharmed'), MessageAck)
    assert alice.expect(MessageResponse).message == 'unharmed'
    server.kill()
    server.start()
    assert system.peer('alice').expect(MessageResponse).message == 'unharmed'


def test_a_copy_of_the_file_is_a_backup(system):
    server = system.server()
    system.register('bob')
    alice = system.peer('alice')
    first = alice.ask(alice.numbered(MessageRequest, to_user_id='bob', message='hi'), MessageAck)
    create = alice.numbered(CreateGroupRequest, user_id_list=['bob'], group_name='us')
    group = alice.ask(create, CreateGroupResponse)
    server.terminate()
    shutil.copy(server.database, system.folder / 'copy.db')
    os.remove(server.database)
    system.server(database='copy.db')
    alice, bob = system.peer(), system.peer('bob')
    assert not alice.ask(LoginRequest(user_name='alice', password='guess'), LoginResponse).success
    assert alice.login('alice').last_client_seq == 2
    assert bob.expect(MessageResponse).message_id == first.message_id
    assert bob.expect(CreateGroupResponse).group_name == 'us'
    history = alice.ask(HistoryRequest(user_id='bob'), HistoryResponse)
    assert texts(history.messages) == ['hi']
    to_us = alice.numbered(GroupMessageRequest, to_group_id=group.group_id, message='still us')
    alice.ask(to_us, MessageAck)
    assert bob.expect(GroupMessageResponse).message == 'still us'


# The client as a library .............................................................................

def test_the_example_of_the_client_runs_as_shown(system):
    server = system.server()
    system.register('bob')
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    example = re.search(r'```python\n(from imclient.*?)```', readme, re.DOTALL)[1].replace('8000', str(server.port))
    script = [*example.splitlines()[:4],
              f"other = Client(loop, '127.0.0.1', {server.port}, lambda event: print('bob', event))",
              "other.login('bob', 'secret')", *example.replace("if event['event'] in", "if None in").splitlines()[4:]]
    process = system.run('-u', '-c', '\n'.join(script))
    wait_until(lambda: any("'event': 'sent'" in line for line in process.lines), 'alice has sent it')
    event = process.expect("bob {'event': 'message', .*}")[0]
    assert "'fromUserId': 'robot'" in event and "'message': 'hello'" in event
    robot = [line for line in process.lines if not line.startswith('bob')]
    assert [re.match(r"{'event': '(\w+)'", line)[1] for line in robot] == ['connected', 'login', 'sent']


LEFT_OPEN = """
import gc, runpy, socket, sys
sys.argv[:] = ['imclient.py', *sys.argv[1:]]
try:
    runpy.run_path('imclient.py', run_name='__main__')
except SystemExit:
    pass
print('open:', [o for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() >= 0])
"""


def test_a_client_that_exits_leaves_no_socket_open(system):
    options = ['--user', 'alice', '--password', 'secret', '--port', str(system.server().port)]
    process = system.run('-c', LEFT_OPEN, *options)
    process.expect('-- logged in .*')
    process.write('/exit')
    assert process.expect('open: (.*)')[1] == '[]'
