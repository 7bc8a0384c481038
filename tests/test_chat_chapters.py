"""Chapters 9 and 10 do the instructions of the original tutorial: their tables name who does what, and those do it.

In order: the tables; what runs behind each of their rows; a client of version 1 that is not ours, byte for byte; ours.
"""
import contextlib
import functools
import re
import socket
import time
from importlib import import_module

import pytest

import imclient
from lessons.chapters import find
import protocol
from protocol import Packet
from reactor import EventLoop, Listener

PATIENCE = 30.0  # seconds until a test gives up
ORIGINAL = {  # the original's lists of instructions: number, name and Chinese name
    9: [(1, 'LOGIN_REQUEST', '登录请求'), (2, 'LOGIN_RESPONSE', '登录响应'),
        (3, 'MESSAGE_REQUEST', '客户端发消息'), (4, 'MESSAGE_RESPONSE', '服务端发消息'),
        (5, 'LOGOUT_REQUEST', '登出请求'), (6, 'LOGOUT_RESPONSE', '登出响应')],
    10: [(7, 'CREATE_GROUP_REQUEST', '创建群聊请求'), (8, 'CREATE_GROUP_RESPONSE', '群聊创建成功通知'),
         (11, 'JOIN_GROUP_REQUEST', '加入群聊请求'), (12, 'JOIN_GROUP_RESPONSE', '群聊加入通知'),
         (13, 'QUIT_GROUP_REQUEST', '退出群聊请求'), (14, 'QUIT_GROUP_RESPONSE', '退出群聊通知'),
         (15, 'GROUP_MESSAGE_REQUEST', '发送群聊消息'), (16, 'GROUP_MESSAGE_RESPONSE', '接收群聊消息')]}
TALK = {  # what the people of a chapter do, one after the other
    9: [('bob', []), ('alice', ['msg bob hello', 'logout'])],
    10: [('bob', []), ('alice', ['create bob', 'group 00000001 hello']),
         ('carol', ['join 00000001', 'quit 00000001'])]}
ROW = re.compile(r'^\| (\d+)(?:<!-- =\w+\.COMMAND -->)? \| (\w+) \| (\S+) \| (.*) \| (.*) \|$', re.MULTILINE)
CELL = re.compile(r'(sends|receives): `(\w+)\.(\w+)`, (\w+)\.py, '
                  r'line (\d+)<!-- =\4\.\2\.\3\.__code__\.co_firstlineno -->')
chapters = pytest.mark.parametrize('number', ORIGINAL)


def rows(number):
    """The rows of a chapter's table: number, name, Chinese, what the client does, what the server does."""
    return [(int(row[1]), row[2], row[3], row[4], row[5])
            for row in ROW.finditer(find(str(number)).sections['Build it'])]


def cells(number):
    """(number of the command, 'sends' or 'receives', class, method, file, line) for each cell of both sides."""
    return [(row[0], *CELL.fullmatch(cell).groups()) for row in rows(number) for cell in row[3:]]


def module(number, name):
    return import_module(f'lessons.{find(str(number)).name}.{name}')


# The tables ..........................................................................................

@chapters
def test_the_table_has_the_instructions_of_the_original(number):
    assert [row[:3] for row in rows(number)] == ORIGINAL[number]


@chapters
def test_a_request_goes_to_the_server_and_a_response_to_the_client(number):
    for _, name, _, client, server in rows(number):
        ways = ('sends', 'receives') if name.endswith('_REQUEST') else ('receives', 'sends')
        assert (CELL.fullmatch(client)[1], CELL.fullmatch(server)[1]) == ways, name


@chapters
def test_each_handler_stands_in_the_line_that_the_table_says(number):
    for _, _, owner, method, file, line in cells(number):
        text = (find(str(number)).folder / f'{file}.py').read_text(encoding='utf-8').splitlines()
        assert text[int(line) - 1].startswith(f'    def {method}(self'), (file, line, method)
        above = [row for row in text[:int(line) - 1] if row.startswith('class ')][-1]
        assert re.match(rf'class {owner}\b', above), (file, line, owner)


# What runs behind them ...............................................................................

class Watch:
    """Notes of the methods of a table which commands they were called with, and which were written while they ran."""

    def __init__(self, monkeypatch, number):
        self.under_way, self.seen = [], set()
        for _, _, owner, method, file, _ in cells(number):
            self.wrap(monkeypatch, getattr(module(number, file), owner), method)
        handler = module(number, 'handlers').PacketHandler
        original = handler.write

        def write(channel_handler, message):
            command = message[6] if isinstance(message, bytes) else message.COMMAND
            self.seen |= {(command, 'sends', name) for name in self.under_way}
            original(channel_handler, message)
        monkeypatch.setattr(handler, 'write', write)

    def wrap(self, monkeypatch, owner, method):
        original, name = getattr(owner, method), f'{owner.__name__}.{method}'
        if hasattr(original, '__wrapped__'):  # it stands in two rows
            return

        @functools.wraps(original)
        def watched(*arguments):
            self.seen |= {(packet.COMMAND, 'receives', name) for packet in arguments if isinstance(packet, Packet)}
            self.under_way.append(name)
            try:
                original(*arguments)
            finally:
                self.under_way.pop()
        monkeypatch.setattr(owner, method, watched)


class World:
    """A chapter's server and its clients, on one loop."""

    def __init__(self, number):
        self.number, self.loop, self.sockets, self.users = number, EventLoop(), [], []
        self.server = module(number, 'server').Server()
        self.listener = Listener(self.loop, '127.0.0.1', 0, self.server.initialize)

    def close(self):
        self.listener.close()
        for user in self.users:
            user.has_ended = True  # it does not come back
            user.channel.abort()
        for channel in list(self.listener.channels):
            channel.abort()
        for sock in self.sockets:
            sock.close()
        self.loop.close()

    def pump(self, is_done, what):
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            assert time.monotonic() < deadline, what() if callable(what) else what
            self.loop.tick(0.05)

    def user(self, name, lines):
        """Let a client of the chapter come, and wait until the server knows it."""
        client = module(self.number, 'client')
        user = client.User(name, list(map(client.instruction, lines)))
        client.Connector(self.loop, self.listener.address[1], user).connect()
        self.users.append(user)
        self.pump(lambda: name in self.server.sessions or user.has_ended, f'{name} does not log in')


@pytest.fixture
def world(request):
    with contextlib.closing(World(request.param)) as world:
        yield world


@pytest.mark.parametrize('world', ORIGINAL, indirect=True)
def test_each_handler_of_the_table_does_what_it_says(world, monkeypatch):
    watch = Watch(monkeypatch, world.number)
    wanted = {(command, way, f'{owner}.{method}') for command, way, owner, method, _, _ in cells(world.number)}
    for name, lines in TALK[world.number]:
        world.user(name, lines)
    world.pump(lambda: wanted <= watch.seen, lambda: f'these were not seen: {sorted(wanted - watch.seen)}')


# A client of version 1 that is not ours ..............................................................

def frame(command, body):
    """A frame of version 1 as the Java client writes it."""
    data = body.encode()
    return bytes.fromhex('12345678 01 01') + bytes([command]) + len(data).to_bytes(4, 'big') + data


class Java:
    """A socket that knows bytes only."""

    def __init__(self, world):
        self.world, self.data = world, b''
        self.socket = socket.create_connection(world.listener.address)
        self.socket.setblocking(False)
        world.sockets.append(self.socket)

    def log_in(self, name):
        self.says(1, f'{{"password":"pwd","userName":"{name}"}}')
        self.hears(2, f'{{"success":true,"userId":"{name}","userName":"{name}"}}')
        return self

    def says(self, command, body):
        self.socket.sendall(frame(command, body))

    def hears(self, command, body):
        self.gets(frame(command, body))

    def gets(self, wanted):
        """Wait for these bytes: no others may come before them."""
        self.world.pump(lambda: self.receive() >= len(wanted), lambda: f'{self.data!r} came, not {wanted!r}')
        got, self.data = self.data[:len(wanted)], self.data[len(wanted):]
        assert got == wanted

    def receive(self):
        with contextlib.suppress(BlockingIOError):
            self.data += self.socket.recv(65_536)
        return len(self.data)

    def is_closed(self):
        """Whether the server ends the connection, with nothing more to say."""
        self.world.pump(self.sees_the_end, 'the connection stays open')
        return not self.data

    def sees_the_end(self):
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return False
        except ConnectionError:  # it has not read all that was sent
            return True
        self.data += data
        return not data


SAID = '{{"fromGroupId":"00000001","fromUser":{{"userId":"{0}","userName":"{0}"}},"message":"{1}"}}'
SERVER_SAYS = '{{"fromUserId":"server","fromUserName":"server","message":"{}"}}'
world_10 = pytest.mark.parametrize('world', [10], indirect=True)


@world_10
def test_a_group_chat_of_java_clients(world):
    zhangsan, lisi, wangwu = (Java(world).log_in(name) for name in ('zhangsan', 'lisi', '王五'))
    zhangsan.says(7, '{"userIdList":["lisi"]}')
    for member in zhangsan, lisi:
        member.hears(8, '{"groupId":"00000001","success":true,"userNameList":["lisi","zhangsan"]}')
    lisi.says(15, '{"message":"大家好","toGroupId":"00000001"}')
    for member in zhangsan, lisi:
        member.hears(16, SAID.format('lisi', '大家好'))
    wangwu.says(11, '{"groupId":"00000001"}')
    wangwu.hears(12, '{"groupId":"00000001","success":true}')
    for member in zhangsan, lisi:
        member.hears(16, SAID.format('王五', 'joined the group'))
    wangwu.says(13, '{"groupId":"00000001"}')
    wangwu.hears(14, '{"groupId":"00000001","success":true}')
    for member in zhangsan, lisi:
        member.hears(16, SAID.format('王五', 'left the group'))
    wangwu.says(3, '{"message":"再见","toUserId":"lisi"}')
    lisi.hears(4, '{"fromUserId":"王五","fromUserName":"王五","message":"再见"}')


@world_10
def test_what_java_clients_are_refused_is_said_in_version_1(world):
    zhangsan, lisi = (Java(world).log_in(name) for name in ('zhangsan', 'lisi'))
    zhangsan.says(7, '{"userIdList":[]}')
    zhangsan.hears(8, '{"groupId":"00000001","success":true,"userNameList":["zhangsan"]}')
    lisi.says(15, '{"message":"hi","toGroupId":"00000001"}')
    lisi.hears(4, SERVER_SAYS.format('you are not in this group'))
    lisi.says(13, '{"groupId":"00000001"}')
    lisi.hears(14, '{"groupId":"00000001","reason":"you are not in this group","success":false}')
    lisi.says(11, '{"groupId":"ffffffff"}')
    lisi.hears(12, '{"groupId":"ffffffff","reason":"there is no such group","success":false}')
    lisi.says(3, '{"toUserId":"zhangsan"}')
    lisi.hears(4, SERVER_SAYS.format('message is missing'))
    lisi.says(20, '{"messageId":1}')
    lisi.hears(4, SERVER_SAYS.format('there is no command 20 here'))
    lisi.says(1, '{"userName":"lisi"}')
    lisi.hears(2, '{"reason":"you are lisi, log out first","success":false,"userName":"lisi"}')


@world_10
def test_java_clients_come_and_go(world):
    zhangsan = Java(world)
    zhangsan.says(17, '{}')
    zhangsan.hears(18, '{}')  # before the login too
    zhangsan.says(3, '{"message":"hi","toUserId":"lisi"}')
    zhangsan.hears(4, SERVER_SAYS.format('log in first'))
    zhangsan.log_in('zhangsan')
    zhangsan.says(7, '{"userIdList":["lisi"]}')
    zhangsan.hears(8, '{"groupId":"00000001","success":true,"userNameList":["lisi","zhangsan"]}')
    zhangsan.says(3, '{"message":"for later","toUserId":"lisi"}')
    zhangsan.says(5, '{}')
    zhangsan.hears(6, '{"success":true}')
    lisi = Java(world).log_in('lisi')
    lisi.hears(8, '{"groupId":"00000001","success":true,"userNameList":["lisi","zhangsan"]}')
    lisi.hears(4, '{"fromUserId":"zhangsan","fromUserName":"zhangsan","message":"for later"}')
    zhangsan.log_in('zhangsan')  # on the same connection
    again = Java(world).log_in('zhangsan')
    zhangsan.hears(4, SERVER_SAYS.format('logged in elsewhere'))
    assert zhangsan.is_closed()
    again.says(15, '{"message":"still a member","toGroupId":"00000001"}')
    for member in again, lisi:
        member.hears(16, SAID.format('zhangsan', 'still a member'))


@world_10
def test_frames_arrive_in_any_pieces(world):
    zhangsan, lisi = (Java(world).log_in(name) for name in ('zhangsan', 'lisi'))
    for byte in frame(3, '{"message":"one","toUserId":"lisi"}') + frame(3, '{"message":"two","toUserId":"lisi"}'):
        zhangsan.socket.sendall(bytes([byte]))
        world.loop.tick(0.001)
    for text in 'one', 'two':
        lisi.hears(4, f'{{"fromUserId":"zhangsan","fromUserName":"zhangsan","message":"{text}"}}')


@world_10
def test_who_sends_what_is_no_frame_is_let_go_and_is_still_a_member(world):
    zhangsan = Java(world).log_in('zhangsan')
    zhangsan.says(7, '{"userIdList":[]}')
    zhangsan.hears(8, '{"groupId":"00000001","success":true,"userNameList":["zhangsan"]}')
    zhangsan.socket.sendall(b'GET / HTTP/1.1\r\n')
    assert zhangsan.is_closed()
    again = Java(world).log_in('zhangsan')
    again.says(15, '{"message":"hi","toGroupId":"00000001"}')
    again.hears(16, SAID.format('zhangsan', 'hi'))


@pytest.mark.parametrize('world', ORIGINAL, indirect=True)
def test_who_is_logged_in_may_send_more(world):
    text = 'x' * 5_000
    zhangsan, stranger = Java(world).log_in('zhangsan'), Java(world)
    for sender in zhangsan, stranger:
        sender.says(3, f'{{"message":"{text}","toUserId":"zhangsan"}}')
    zhangsan.hears(4, f'{{"fromUserId":"zhangsan","fromUserName":"zhangsan","message":"{text}"}}')
    assert stranger.is_closed()
    zhangsan.says(5, '{}')
    zhangsan.hears(6, '{"success":true}')
    zhangsan.says(3, f'{{"message":"{text}","toUserId":"zhangsan"}}')
    assert zhangsan.is_closed()


# Our own client ......................................................................................

@pytest.mark.parametrize('world', ORIGINAL, indirect=True)
def test_imclient_notices_the_version_and_chats(world):
    events = {name: [] for name in ('alice', 'bob')}
    clients = {}
    for name, told in events.items():
        clients[name] = imclient.Client(world.loop, *world.listener.address, told.append)
        clients[name].login(name, 'pwd')
        world.pump(lambda: clients[name].is_logged_in, f'{name} does not log in')
    assert clients['alice'].version == clients['bob'].version == 1
    clients['alice'].send_message('bob', 'hello')
    world.pump(lambda: 'hello' in [event.get('message') for event in events['bob']], lambda: str(events['bob']))
    if world.number == 10:
        clients['bob'].request(protocol.CreateGroupRequest(user_id_list=['alice']))
        world.pump(lambda: world.server.groups, 'no group is made')
        clients['alice'].send_group_message('00000001', 'hello all')
        world.pump(lambda: 'hello all' in [event.get('message') for event in events['bob']], lambda: str(events['bob']))
    for client in clients.values():
        client.close().abort()
