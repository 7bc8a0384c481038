"""What a person at the client's terminal sees: the real script in tmux, or else in a pseudo-terminal."""
import re
import shutil
import sys

import pytest
from screens import BACKENDS, Pty, Tmux
from test_imclient import Tty

from protocol import (
    CreateGroupRequest, CreateGroupResponse, DeliveryAck, GroupMessageRequest, MessageAck, MessageRequest,
    MessageResponse, decode)

needs_tmux = pytest.mark.skipif(not shutil.which('tmux'), reason='no tmux here')
WELCOME = '-- /chat NAME talks to somebody, /users shows who is there, /help the rest'


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def open_terminal(request, system, tmp_path):
    """Open terminals, each with a client of the server that was started last."""
    opened = []

    def open_it(*options, columns=80, rows_kept=24, user='alice', backend=request.param, **variables):
        command = [sys.executable, 'imclient.py', '--port', str(system.main.port)]
        command += [*(['--user', user] if user else []), *options]
        variables = {'IM_PASSWORD': 'secret', 'XDG_STATE_HOME': str(tmp_path), **variables}
        opened.append(backend(command, columns, rows_kept, **variables))
        if user and 'IM_PASSWORD' in variables:
            prompt = re.compile(rf'{user}( \(#?\w+ \d+\))?>')
            opened[-1].until(lambda rows: any(map(prompt.fullmatch, rows)), 'logged in')
        return opened[-1]
    yield open_it
    for terminal in opened:
        terminal.close()


@pytest.fixture
def server(system):
    system.main = system.server('--idle', '600')
    return system


def ask(peer, kind, **fields):
    """Make a request, whatever else comes before its answer."""
    peer.send(peer.numbered(kind, **fields))
    while type(decode(peer.frame())) not in (MessageAck, CreateGroupResponse):
        pass


def say(peer, to, *texts):
    for text in texts:
        ask(peer, MessageRequest, to_user_id=to, message=text)


# Typing ..............................................................................................

@pytest.mark.parametrize('columns', [80, 40])
@pytest.mark.parametrize('half', ['half a line', '半句话还没有写完', 'cafe\u0301 e\u0301te\u0301', 'so 😀 smiles 👍🎉'],
                         ids=['English', 'Chinese', 'combined', 'emoji'])
def test_what_arrives_leaves_the_half_typed_line_and_its_cursor(server, open_terminal, columns, half):
    bob, alice = server.peer('bob'), open_terminal(columns=columns)
    alice.type(half)
    alice.press('Left', 'Left', 'Left')
    alice.type('X')  # once that is there, so are the keys before it
    alice.until(lambda rows: any('X' in row for row in rows), 'X')
    alice.press('BSpace')
    alice.last(f'alice> {half}')
    column, _ = alice.cursor()
    say(bob, 'alice', 'hello there', '你好，在吗？', 'party 🎉 tonight')
    alice.sees('bob: hello there', 'bob: 你好，在吗？', 'bob: party 🎉 tonight')
    alice.last(f'alice (bob 3)> {half}')
    assert alice.cursor()[0] == column + len(' (bob 3)')
    alice.press('C-a', 'C-k')
    alice.last('alice (bob 3)>')


def test_a_lost_server_and_its_return_leave_the_half_typed_line(server, open_terminal):
    alice = open_terminal()
    alice.type('/msg alice 还在')
    server.main.terminate()
    alice.sees('-- disconnected: ', 'connecting again in ').last('alice (connecting)> /msg alice 还在')
    alice.press('Enter')
    alice.last('alice (connecting) (1 on the way)>')
    server.main.start()
    alice.sees('you -> alice: 还在 ✓').last('alice>')


def test_the_keys_people_know(server, open_terminal):
    alice = open_terminal()
    alice.type('one two three')
    alice.press('C-w')
    alice.last('alice> one two')
    alice.press('Home')
    alice.type('zero ')
    alice.press('End')
    alice.type('!')
    alice.last('alice> zero one two !')
    alice.press('BSpace', 'C-a', 'C-k')
    alice.last('alice>')
    alice.type('gone')
    alice.press('C-u')
    alice.last('alice>')


def test_what_was_entered_comes_back_in_the_next_run_but_no_password(server, open_terminal, tmp_path):
    server.register('carol')
    alice = open_terminal()
    for line in '/msg alice first 一', '/logout', '/login carol':
        alice.type(line)
        alice.press('Enter')
        if line == '/logout':
            alice.last('alice (not logged in)>')
    alice.last('Password of carol:')
    alice.type('secret')
    alice.press('Enter')
    alice.sees('logged in as carol').last('carol>')
    alice.press('C-d')
    again = open_terminal()
    again.press('Up')
    again.last('alice> /login carol')
    again.press('Up', 'Up')
    again.last('alice> /msg alice first 一')
    again.press('Down', 'Down', 'Down')
    again.last('alice>')
    assert 'secret' not in (tmp_path / 'im' / 'history').read_text(encoding='utf-8')


def test_tab_completes_commands_users_and_groups(server, open_terminal):
    bob = server.peer('bob')
    server.register('barbara')
    alice = open_terminal()
    ask(bob, CreateGroupRequest, user_id_list=['alice'], group_name='team')
    alice.sees('-- group #team (')
    alice.type('/ms')
    alice.press('Tab')
    alice.last('alice> /msg')
    alice.type('bar')
    alice.press('Tab')
    alice.type('hi')
    alice.last('alice> /msg barbara hi')
    alice.press('C-u')
    alice.type('/msg b')
    alice.press('Tab')
    alice.last('alice> /msg barbara')
    alice.press('Tab')
    alice.last('alice> /msg bob')
    alice.press('C-u')
    alice.type('/group #t')
    alice.press('Tab')
    alice.last('alice> /group #team')


def test_ctrl_c_clears_and_twice_leaves(server, open_terminal):
    alice = open_terminal()
    alice.type('half')
    alice.press('C-c')
    alice.last('alice>')
    alice.type('x')
    alice.press('C-u', 'C-c')
    alice.sees('-- Ctrl-C once more leaves')
    alice.type('still here')
    alice.last('alice> still here')
    alice.press('C-u')
    alice.type('/login carol')
    alice.press('Enter')
    alice.last('Password of carol:')
    alice.press('C-c')
    alice.sees('-- nobody logs in; Ctrl-C once more leaves').last('alice>')


@needs_tmux
def test_ctrl_z_at_the_password_does_not_bring_it_to_light(server, tmp_path):
    shell = Tmux(['bash', '--norc', '-i'], 80, PS1='shell$ ', XDG_STATE_HOME=str(tmp_path))
    try:
        shell.last('shell$')
        shell.type(f'{sys.executable} imclient.py --port {server.main.port} --user alice')
        shell.press('Enter')
        shell.last('Password:')
        shell.press('C-z')
        shell.type('s3cret')
        shell.press('Enter')
        shell.sees(WELCOME).last('alice>')
        assert 's3cret' not in '\n'.join(shell.rows())
        shell.press('C-z')
        shell.sees('Stopped').last('shell$')
    finally:
        shell.close()


@needs_tmux
def test_ctrl_z_and_fg_come_back_whole(server, tmp_path):
    shell = Tmux(['bash', '--norc', '-i'], 80, PS1='shell$ ', IM_PASSWORD='secret', XDG_STATE_HOME=str(tmp_path))
    try:
        shell.last('shell$')
        shell.type(f'{sys.executable} imclient.py --port {server.main.port} --user alice')
        shell.press('Enter')
        shell.sees(WELCOME).last('alice>')
        shell.type('half a 行')
        shell.last('alice> half a 行')
        shell.press('C-z')
        shell.sees('Stopped').last('shell$')
        shell.type('echo cooked | tr a-z A-Z')
        shell.press('Enter')
        shell.sees('COOKED').last('shell$')
        shell.type('fg')
        shell.press('Enter')
        shell.last('alice> half a 行')
        shell.press('C-u')
        shell.type('/msg alice back')
        shell.press('Enter')
        shell.sees('you -> alice: back ✓')
        shell.press('C-d')
        shell.last('shell$')
    finally:
        shell.close()


# It reads like a chat ................................................................................

def test_a_conversation_in_front_and_one_that_is_not(server, open_terminal):
    bob, carol = server.peer('bob'), server.peer('carol')
    alice = open_terminal()
    say(bob, 'alice', 'are you there?')
    alice.last('alice (bob 1)>')
    alice.type('/chat bob')
    alice.press('Enter')
    alice.sees('-- history with bob:', 'bob: are you there?').last('alice -> bob>')
    alice.type('yes 我在')
    alice.press('Enter')
    alice.sees('you -> bob: yes 我在 ✓').last('alice -> bob>')
    say(carol, 'alice', 'and me?', 'hello?')
    say(bob, 'alice', 'fine')
    alice.sees('bob: fine').last('alice -> bob (carol 2)>')
    alice.type('/chat')
    alice.press('Enter')
    alice.last('alice (carol 2)>')


def test_groups_go_by_their_names(server, open_terminal):
    bob = server.peer('bob')
    alice = open_terminal()
    alice.type('/create team: bob')
    alice.press('Enter')
    alice.sees('-- group #team (')
    alice.type('/chat #team')
    alice.press('Enter')
    alice.last('alice -> #team>')
    alice.type('大家好')
    alice.press('Enter')
    alice.sees('#team you: 大家好 ✓')
    group = re.search('-- group #team \\(([0-9a-f]{8})', '\n'.join(alice.rows()))[1]
    ask(bob, GroupMessageRequest, to_group_id=group, message='hi all')
    alice.sees('#team bob: hi all')
    again = open_terminal()  # a new run, which has to learn the name first
    again.type('/group #t')
    again.until(lambda rows: again.press('Tab') or 'alice> /group #team' in rows, 'the name')
    again.press('C-a', 'C-k')
    say(bob, 'alice', 'private')
    ask(bob, GroupMessageRequest, to_group_id=group, message='and again')
    again.sees('#team bob: and again').last('alice (bob 1, #team 1)>')


def test_a_group_joined_by_its_id_goes_by_its_name(server, open_terminal):
    bob = server.peer('bob')
    bob.send(bob.numbered(CreateGroupRequest, user_id_list=['bob'], group_name='team'))
    group = bob.expect(CreateGroupResponse).group_id
    alice = open_terminal()
    alice.type(f'/join {group}')
    alice.press('Enter')
    alice.sees('-- you joined group #')
    alice.type('/chat #t')
    alice.until(lambda rows: alice.press('Tab') or 'alice> /chat #team' in rows, 'the name')
    alice.press('Enter')
    alice.last('alice -> #team>')
    assert not any('-- groups' in row for row in alice.rows())


def test_who_finds_a_group_by_its_id_is_told_its_name(server, open_terminal):
    """What had waited comes before the list of groups, which is asked for with the login."""
    bob, alice = server.peer('bob'), server.peer('alice')
    bob.send(bob.numbered(CreateGroupRequest, user_id_list=['alice'], group_name='team'))
    created = alice.expect(CreateGroupResponse)
    alice.send(DeliveryAck(message_id=created.message_id))
    alice.socket.close()
    ask(bob, GroupMessageRequest, to_group_id=created.group_id, message='so?')
    alice = open_terminal()
    alice.sees(f'#{created.group_id} bob: so?').sees(f'#team ({created.group_id}), members: 2').last('alice (#team 1)>')
    again = open_terminal()  # nothing waits now, so nobody needs the list
    again.last('alice>')
    say(bob, 'alice', 'hi')
    assert not any('-- groups' in row for row in again.sees('bob: hi').rows())


def test_a_name_has_a_colour_for_good_and_without_colours_there_is_no_escape(server, open_terminal):
    bob = server.peer('bob')
    alice = open_terminal()
    say(bob, 'alice', 'one', 'two')
    alice.sees('bob: two')
    if not isinstance(alice, Tmux):
        return
    rows = [row for row in alice.rows('-e') if 'bob' in row and ('one' in row or 'two' in row)]
    assert len(set(re.findall(r'\x1b\[(\d+)m\s*bob', '\n'.join(rows)))) == 1, rows


@pytest.mark.parametrize('options, variables', [(['--no-color'], {}), ([], {'NO_COLOR': '1'})])
def test_without_colours_there_is_no_escape_character_at_all(server, options, variables, tmp_path):
    tty = Tty(server.main.port, *options, user='alice', XDG_STATE_HOME=str(tmp_path), IM_PASSWORD='secret', **variables)
    try:
        tty.last('alice>').type('/msg alice hi there\x1b[D\r/nonsense\r')
        tty.sees('alice: hi there', '! there is no command /nonsense')
        tty.type('\x04')
        assert tty.ends() == 1 and b'\x1b' not in tty.raw
    finally:
        tty.close()


# What to do next .....................................................................................

@pytest.mark.parametrize('line, answer', [
    ('/mgs bob hi', '! there is no command /mgs; did you mean /msg?'),
    ('/xyzzy', '! there is no command /xyzzy; /help lists them'),
    ('/msg nobody hi', '! there is no user nobody -> /users lists who there is'),
    ('/group 0a0a0a0a hi', '! there is no such group -> /groups lists yours'),
    ('/msg bob', '! usage: /msg USER TEXT'),
    ('hello?', '! say to whom: /chat USER, or /msg USER TEXT')])
def test_every_refusal_says_what_to_do_next(server, open_terminal, line, answer):
    alice = open_terminal()
    alice.type(line)
    alice.press('Enter')
    alice.sees(answer)


def test_help_fits_one_screen(server, open_terminal):
    alice = open_terminal()
    alice.type('/help')
    alice.press('Enter')
    alice.sees('/msg USER TEXT', '/exit')


def test_the_first_minutes(server, open_terminal):
    server.register('alice')
    newcomer = open_terminal(user=None, **{'IM_PASSWORD': 'secret'})
    newcomer.sees('Name (the first login with a free one makes the account):')
    newcomer.type('新人')
    newcomer.press('Enter')
    newcomer.sees(WELCOME).last('新人>')
    newcomer.type('/chat alice')
    newcomer.press('Enter')
    newcomer.last('新人 -> alice>')
    newcomer.type('hello')
    newcomer.press('Enter')
    newcomer.sees('you -> alice: hello ✓')


def test_a_wrong_password_says_how_to_try_again(server, open_terminal):
    server.register('alice')
    alice = open_terminal(user=None, IM_PASSWORD='wrong')
    alice.type('alice')
    alice.press('Enter')
    alice.sees('! login failed: that is not the password of this name -> /login NAME asks again')
    alice.type('/login alice')
    alice.press('Enter')
    alice.last('Password of alice:')
    alice.type('secret')
    alice.press('Enter')
    alice.sees('logged in as alice').last('alice>')


def test_who_was_away_for_long_is_told_how_much_had_waited(server, open_terminal):
    bob = server.peer('bob')
    server.register('alice')
    say(bob, 'alice', *(f'message {n}' for n in range(40)))
    alice = open_terminal()
    alice.sees('message 39', '-- 40 messages had waited; /chat NAME shows the last ones').last('alice (bob 40)>')


def test_no_server_says_what_was_tried_and_what_to_do(server, open_terminal):
    server.main.terminate()
    nobody = open_terminal('--retries', '1', user=None, backend=Pty)  # tmux would be gone with it
    nobody.type('alice')
    nobody.press('Enter')
    nobody.sees('cannot reach the server: Connection refused; connecting again in ')
    nobody.until(lambda rows: 'is imserver.py running there? (--host, --port)' in ''.join(rows), 'gave up')


def test_in_front_of_a_pipe_the_password_is_asked_for(server, open_terminal, tmp_path):
    server.register('bob')
    shell = BACKENDS[0](['sh', '-c', f"echo '/msg bob hi there' | {sys.executable} imclient.py --port {server.main.port} "
                         '--user alice; echo code $?; cat'], 80)
    try:
        shell.sees('Password:')
        shell.type('secret')
        shell.press('Enter')
        shell.sees('you -> bob: hi there', 'code 0')
        assert 'secret' not in '\n'.join(shell.rows())
    finally:
        shell.close()


def test_who_is_chatted_with_is_somebody(server, open_terminal):
    server.register('bob')
    alice = open_terminal()
    for line, prompt in (('/chat bob', 'alice -> bob>'), ('/history nobody', 'alice -> bob>'),
                         ('/quit #nope', 'alice -> bob>'),
                         ('/chat nobody', 'alice>'), ('/chat #nope', 'alice>'), ('/chat 0a0a0a0a', 'alice>')):
        alice.type(line)
        alice.press('Enter')
        alice.last(prompt)


def test_a_chat_that_could_not_be_looked_up_deranges_no_later_one(server, open_terminal):
    server.register('bob')
    alice = open_terminal()
    for line, prompt in (('/logout', 'alice (not logged in)>'), ('/chat bob', 'alice (not logged in) -> bob>'),
                         ('/login alice', 'Password of alice:'), ('secret', 'alice -> bob>'),
                         ('/history nobody', 'alice -> bob>')):
        alice.type(line)
        alice.press('Enter')
        alice.last(prompt)
    alice.sees('! there is no user nobody').last('alice -> bob>')
    for piece in '/history ', *['x' * 8_190] * 4:  # tmux takes no more at once
        alice.type(piece)
    alice.press('Enter')
    alice.sees('! more than 32736 bytes').last('alice -> bob>')
    alice.type('/chat nobody')
    alice.press('Enter')
    alice.last('alice>')


def test_no_password_is_kept_whatever_it_was_typed_behind(server, open_terminal, tmp_path):
    alice = open_terminal()
    alice.type('/logout')
    alice.press('Enter')
    alice.last('alice (not logged in)>')
    alice.type('pa55word')  # where it is not asked for yet
    alice.press('Enter')
    alice.sees('! say to whom')
    alice.type('/logn alice pa55word')
    alice.press('Enter')
    alice.sees('! there is no command /logn')
    alice.type('/login alice\rsecret\r')  # in one piece: the password is typed before anybody asks for it
    alice.last('alice>')
    alice.press('Up')
    alice.last('alice> /login alice')
    alice.press('C-u')
    alice.type(' /login carol hunter2')
    alice.press('Enter')
    alice.last('Password of carol:')
    kept = (tmp_path / 'im' / 'history').read_text(encoding='utf-8')
    assert kept == '/logout\n/login alice\n/login carol\n'


def test_a_password_pasted_with_its_line_breaks_is_no_message(server, open_terminal, tmp_path):
    bob = server.peer('bob')
    alice = open_terminal()
    alice.type('/chat bob')
    alice.press('Enter')
    alice.last('alice -> bob>')
    alice.type('/login carol\r\rs3cret\r\r')  # as tmux pastes CR LF
    alice.sees('! you are alice; log out first')
    alice.type('hello')
    alice.press('Enter')
    assert bob.expect(MessageResponse).message == 'hello'
    assert 's3cret' not in (tmp_path / 'im' / 'history').read_text(encoding='utf-8')


def test_leaving_with_messages_on_the_way_says_so(server, open_terminal):
    alice = open_terminal(backend=Pty)
    server.main.terminate()
    alice.last('alice (connecting)>')
    for line in '/users', '/msg alice lost':  # a question is not what anybody waits for
        alice.type(line)
        alice.press('Enter')
    alice.last('alice (connecting) (1 on the way)>')
    alice.press('C-c', 'C-c')
    alice.sees('imclient.py: of 1 on the way nobody knows whether they arrived')
