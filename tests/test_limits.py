"""Every limit that `imserver.py --limits` prints, and those of the client, crossed by one: CROSSED says by which test.

Each of those tests goes up to the limit and sees that nothing happens, then one further and sees what is promised: it
is refused, cut, paused, closed.  Those that stand nowhere else are here.  World has the real server and plain sockets,
ClientWorld the real client and a server that does what a test says, both with clocks that a test moves.
"""
import ast
import io
import itertools
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import console
import imclient
import imserver
import protocol
import reactor
import store as store_module
from console import PlainTerminal
from imserver import HISTORY_DEFAULT, HISTORY_SIZE, MAX_MESSAGE, PAGE, PAGES_A_TICK, RATE_PAUSE, SAVE_INTERVAL
from peers import World
from protocol import (
    MAX_BODY_CLIENT, DeliveryAck, HeartbeatRequest, HeartbeatResponse, HistoryRequest, HistoryResponse,
    JoinGroupResponse, ListUsersRequest, ListUsersResponse, LoginRequest, LoginResponse, MessageRequest,
    MessageResponse, encode)
from store import FOREVER, HISTORY_STEP, ROWS_A_STATEMENT, RUN, RUNS_AT_ONCE, Store
from test_imclient import World as ClientWorld, ack_of
from test_imserver import Ended, blocked_reader, frame
from test_store import ids, recorded, say

TESTS = Path(__file__).parent
SERVER_SIDE = (protocol, reactor, store_module, imserver)
CLIENT_SIDE = (imclient, console)
OPTIONS = {f'--{name.replace("_", "-")}': value for name, value in vars(imserver.make_parser().parse_args([])).items()
           if type(value) in (int, float)}  # and their defaults
RANGES = {'--port': (0, 65_535), '--idle': (1, 86_400), '--login-timeout': (1, 86_400),
          '--max-connections': (1, 1_000_000), '--max-unauthenticated': (1, 1_000_000),
          '--max-body': (imserver.MIN_MAX_BODY, 2**31), '--max-group': (1, 3_000), '--rate': (0, 1_000_000),
          '--password-cost': (10, 20)}
CROSSED = {  # several tests: up to it, over it
    '--idle': 'test_imserver.py::test_idle_connection_is_closed_at_its_time_and_not_before',
    '--login-timeout': 'test_imserver.py::test_login_time_begins_anew_after_logout',
    '--max-connections': 'test_imserver.py::test_callers_beyond_max_connections_are_closed',
    '--max-unauthenticated': 'test_abuse.py::test_who_waits_longest_without_a_login_makes_room',
    '--max-body': 'test_imserver.py::test_max_body_is_an_option',
    '--max-group': 'test_delivery.py::test_max_group_at_creation '
                   'test_delivery.py::test_two_joins_in_one_tick_for_the_last_place',
    '--rate': 'test_limits.py::test_one_request_over_the_rate_pauses_reading_for_its_time',
    '--password-cost': 'test_limits.py::test_the_range_of_an_option '
                       'test_limits.py::test_passwords_are_kept_at_the_cost_asked_for',
    # protocol
    'MAX_BODY': 'test_protocol.py::test_limit_by_default '
                'test_imserver.py::test_too_long_frame_of_version_2_is_refused_and_closed',
    'MAX_BODY_BEFORE_LOGIN': 'test_imserver.py::test_too_long_frame_of_version_2_is_refused_and_closed',
    'MAX_BODY_CLIENT': 'test_limits.py::test_the_client_takes_the_longest_body_and_gives_up_at_a_longer_one',
    'MAX_NESTING': 'test_protocol.py::test_sixteen_levels_are_allowed '
                   'test_protocol.py::test_seventeen_levels_are_refused '
                   'test_protocol.py::test_brackets_behind_a_text_do_nest',
    **dict.fromkeys(('INT_MIN', 'INT_MAX'), 'test_protocol.py::test_64_bits_are_read '
                    'test_protocol.py::test_over_64_bits_are_refused_in_declared_fields_only'),
    # reactor
    'READ_SIZE': 'test_reactor.py::test_exactly_read_size_bytes_need_one_tick '
                 'test_reactor.py::test_a_tick_reads_read_size_bytes_at_most',
    'SWEEP': 'test_reactor.py::test_cancelled_timers_do_not_fill_the_heap',
    'READ_ROUNDS': 'test_reactor.py::test_who_becomes_ready_in_a_tick_is_read_in_it_a_few_times_over',
    'HIGH_WATER_MARK': 'test_reactor.py::test_at_the_high_mark_it_is_writable_one_byte_more_and_it_is_not',
    'LOW_WATER_MARK': 'test_reactor.py::test_one_byte_above_the_low_mark_it_is_not_writable_at_the_mark_it_is',
    'ACCEPTS_A_TICK': 'test_reactor.py::test_no_more_than_accepts_a_tick_are_accepted_in_one_tick',
    'ACCEPT_PAUSE': 'test_reactor.py::test_without_descriptors_the_loop_neither_dies_nor_spins',
    'CLOSE_TIMEOUT': 'test_reactor.py::test_a_peer_that_does_not_end_its_side_is_let_go_after_close_timeout',
    'HANDSHAKE_TIMEOUT': 'test_tls.py::test_a_handshake_that_does_not_end_is_ended',
    'SELECT_LIMIT': 'test_reactor.py::test_under_select_the_channels_are_limited_to_what_select_can_watch',
    'MAX_WAIT': 'test_reactor.py::test_select_sleeps_until_the_nearest_timer_but_no_longer_than_the_caller_allows',
    # store
    'CACHE_SIZE': 'test_store.py::test_a_cache_starts_anew_once_it_is_over_its_size',
    'RECENT': 'test_store.py::test_the_index_is_written_once_so_many_entries_wait_for_it',
    'RUN': 'test_store.py::test_a_hot_stream_is_written_in_runs',
    'RUNS_AT_ONCE': 'test_limits.py::test_so_many_rows_of_the_index_are_fetched_at_once_and_the_others_when_needed',
    'ROWS_A_STATEMENT': 'test_limits.py::test_one_entry_more_than_a_statement_takes_is_a_second_statement',
    'HISTORY_STEP': 'test_limits.py::test_one_entry_more_than_a_step_of_history_is_a_second_look',
    'TOKEN_LIFETIME': 'test_store.py::test_a_token_ends_with_its_lifetime',
    'MAX_NAME': 'test_imserver.py::test_names_of_any_script test_imserver.py::test_invalid_names',
    'WRONG_FOR_A_NAME': 'test_abuse.py::test_five_wrong_passwords_for_a_name_and_the_sixth_is_not_looked_at',
    'WRONG_IN_ALL': 'test_abuse.py::test_thirty_wrong_passwords_from_an_address_lock_it_for_all_names',
    'WRONG_MEMORY': 'test_abuse.py::test_five_wrong_passwords_for_a_name_and_the_sixth_is_not_looked_at',
    'WRONG_KEPT': 'test_abuse.py::test_the_table_of_the_wrong_is_bounded_and_forgets_who_was_wrong_longest_ago',
    # imserver
    'MAX_GROUP_NAME': 'test_delivery.py::test_length_of_a_group_name',
    'MAX_MESSAGE': 'test_delivery.py::test_text_is_delivered_and_stored_as_sent '
                   'test_delivery.py::test_empty_and_too_long_messages',
    'MIN_MAX_BODY': 'test_limits.py::test_the_range_of_an_option test_protocol.py::test_longest_message_fits',
    'MAX_BAD_FRAMES': 'test_imserver.py::test_tenth_bad_frame_is_refused_and_closes',
    'FRAME_TIMEOUT': 'test_abuse.py::test_a_frame_that_does_not_become_whole_closes',
    'RATE_PAUSE': 'test_limits.py::test_one_request_over_the_rate_pauses_reading_for_its_time',
    'HISTORY_LIMIT': 'test_delivery.py::test_limit_before_and_more test_delivery.py::test_history_that_asks_wrongly',
    'HISTORY_DEFAULT': 'test_limits.py::test_a_history_has_so_many_messages_where_nobody_says_how_many',
    'HISTORY_SIZE': 'test_limits.py::test_a_history_of_one_byte_more_is_cut',
    'USERS_LIMIT': 'test_delivery.py::test_list_of_users_has_200_at_most',
    'GROUPS_LIMIT': 'test_delivery.py::test_list_of_groups_is_bounded',
    'PAGE': 'test_limits.py::test_one_entry_more_than_a_page_is_fed_a_tick_later',
    'PAGES_A_TICK': 'test_limits.py::test_one_lagging_session_more_than_a_tick_feeds_is_fed_in_the_next',
    'SAVE_INTERVAL': 'test_limits.py::test_acknowledgements_are_written_at_their_time_and_not_before',
    'STOP_TIMEOUT': 'test_limits.py::test_a_stop_waits_so_long_for_who_does_not_read',
    'STOP_LOOK': 'test_limits.py::test_a_stop_looks_again_after_its_time_whether_all_is_sent',
    'MEMBERS_CACHE': 'test_limits.py::test_one_group_more_than_the_cache_of_members_takes_begins_it_anew',
    'TICKS': 'test_watch.py::test_stats_look_back_on_so_many_ticks_and_no_more',
    'TEMPLATES': 'test_limits.py::test_one_sender_more_takes_the_place_of_who_wrote_longest_ago',
    'RUN_SIZE': 'test_delivery.py::test_a_run_is_no_longer_than_one_long_message',
    # imclient
    'CONNECT_TIMEOUT': 'test_imclient.py::test_time_limit_of_an_attempt',
    'BACKOFF_FIRST': 'test_imclient.py::test_backoff_is_drawn_between_0_and_its_bound',
    'BACKOFF_LAST': 'test_imclient.py::test_backoff_is_drawn_between_0_and_its_bound',
    'HEARTBEAT_INTERVAL': 'test_imclient.py::test_heartbeats_every_5_seconds_before_login_too',
    'SERVER_IDLE': 'test_imclient.py::test_silent_server_is_dead_after_15_seconds',
    'LOGIN_PATIENCE':
        'test_hostile_server.py::test_a_server_that_never_answers_the_login_is_sought_more_and_more_seldom',
    'PATIENCE': 'test_limits.py::test_a_script_gives_a_lost_server_up_at_its_time_and_not_before',
    'END_TIMEOUT': 'test_limits.py::test_a_script_waits_so_long_for_its_answers',
    'KNOWN_NAMES': 'test_limits.py::test_so_many_groups_are_known_and_none_more',
    'LONGEST_ID': 'test_limits.py::test_a_group_with_a_longer_id_is_not_known',
    'MAX_USERS': 'test_limits.py::test_a_list_with_one_brace_more_is_not_read',
    'LARGEST_REQUEST': 'test_limits.py::test_a_request_of_one_byte_more_is_not_sent',
    'WINDOW': 'test_imclient.py::test_5000_lines_arrive_in_order_and_the_window_is_kept',
    'LINES_AHEAD': 'test_limits.py::test_beyond_so_many_lines_a_pipe_waits',
    # console
    'LINE_LIMIT': 'test_console.py::test_line_reader '
                  'test_console.py::test_an_overlong_line_ignores_more_keys_but_not_the_others',
    'SEQUENCE_LIMIT': 'test_console.py::test_an_endless_sequence_takes_no_room',
    'TYPED_LIMIT': 'test_console.py::test_the_history_holds_so_many_lines_and_no_more',
    'BACKLOG_PAUSE': 'test_limits.py::test_what_had_waited_is_counted_once_none_has_come_for_its_time',
    'LEAVE_TIMEOUT': 'test_limits.py::test_a_server_that_does_not_close_is_left_after_its_time',
}
NO_LIMIT = {  # what is a number, and why nobody can cross it
    '--port': 'an address; what it may be is in RANGES',
    'MAGIC': 'how a frame begins', 'HEADER_SIZE': 'how a frame begins', 'JSON': 'the number of a serializer',
    'APPLICATION_ID': 'the mark of our files', 'SCHEMA_VERSION': 'that of our tables',
    'FOREVER': 'stands for no end; the largest number that is taken is INT_MAX',
    'SCRYPT_BLOCK': 'a parameter of scrypt', 'YOUNG_OBJECTS': 'when garbage is looked for: it changes the speed alone',
}


# The table ...........................................................................................

def constants_in(text):
    """The names of what is assigned in capitals at the beginning of a line."""
    return {name for names in re.findall(r'^([A-Z][A-Z0-9_, ]+) = ', text, re.MULTILINE) for name in names.split(', ')}


def numbers_of(*modules):
    """The constants of these modules that are numbers, by name."""
    return {name: getattr(module, name) for module in modules
            for name in constants_in(Path(module.__file__).read_text(encoding='utf-8'))
            if type(getattr(module, name)) in (int, float)}


NUMBERS = numbers_of(*SERVER_SIDE, *CLIENT_SIDE)


def test_every_limit_that_is_printed_is_crossed(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['imserver.py', '--limits'])
    imserver.main()
    text = capsys.readouterr().out
    printed = {*re.findall(r'^(--[\w-]+) [\d.]+$', text, re.MULTILINE), *constants_in(text) & NUMBERS.keys()}
    assert printed <= CROSSED.keys() | NO_LIMIT.keys()
    # And it prints all there are.  What has no comment it would leave out.
    assert OPTIONS.keys() | numbers_of(*SERVER_SIDE).keys() <= printed | NO_LIMIT.keys()


def test_every_number_of_the_client_is_crossed_and_the_table_has_no_other():
    assert CROSSED.keys() | NO_LIMIT.keys() == NUMBERS.keys() | OPTIONS.keys()
    assert not CROSSED.keys() & NO_LIMIT.keys()


def mentioned(test):
    """The names, texts and numbers in a test, its parameters, and the constants of its file that it uses."""
    file, _, name = test.partition('::')
    body = ast.parse((TESTS / file).read_text(encoding='utf-8')).body
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(found) == 1, f'there is no {test}'
    used = {node.id for node in ast.walk(found[0]) if isinstance(node, ast.Name)}
    found += [node for node in body if isinstance(node, ast.Assign) and {ast.unparse(t) for t in node.targets} & used]
    return {getattr(node, {ast.Name: 'id', ast.Attribute: 'attr', ast.Constant: 'value'}[type(node)])
            for one in found for node in ast.walk(one) if isinstance(node, (ast.Name, ast.Attribute, ast.Constant))}


@pytest.mark.parametrize('name', CROSSED)
def test_the_test_that_crosses_it_is_there_and_names_it(name):
    """By its name, or by its number, or by the number before or behind that."""
    limit = OPTIONS.get(name, NUMBERS.get(name))
    words = set().union(*map(mentioned, CROSSED[name].split()))
    numbers = {word for word in words if type(word) in (int, float)}
    assert name in words or numbers & {limit - 1, limit, limit + 1}


# Options .............................................................................................

@pytest.fixture
def open_world():
    worlds = []

    def open_world(*options):
        worlds.append(World(':memory:', *options))
        return worlds[-1]
    yield open_world
    for world in worlds:
        world.close()


@pytest.fixture
def world(open_world):
    return open_world()


def at(world, moment):
    """Let it be that moment, and everything be done that is due then."""
    world.settle()
    world.clock.now = moment
    world.loop.tick(0)
    world.settle()


@pytest.mark.parametrize('option', OPTIONS)
def test_the_range_of_an_option(option, capsys):
    parser, attribute = imserver.make_parser(), option[2:].replace('-', '_')
    for inside in RANGES[option]:
        assert getattr(parser.parse_args([option, str(inside)]), attribute) == inside
    least, most = RANGES[option]
    for outside in least - 1, most + 1:
        with pytest.raises(SystemExit):
            parser.parse_args([option, str(outside)])
        assert option in capsys.readouterr().err


@pytest.mark.parametrize('cost', [10, 11])
def test_passwords_are_kept_at_the_cost_asked_for(open_world, cost):
    world = open_world('--password-cost', str(cost))
    world.login('alice')
    assert world.store.password_of('alice').cost == cost


def test_one_request_over_the_rate_pauses_reading_for_its_time(open_world):
    world = open_world('--rate', '40')
    alice, began = world.login('alice'), world.clock.now
    alice.send(*[ListUsersRequest()] * 40)
    assert len(alice.receive_all()) == 40  # the heartbeat behind them was answered: it is read
    alice.send(ListUsersRequest(), HeartbeatRequest())
    alice.expect(ListUsersResponse)
    at(world, began + RATE_PAUSE - 0.001)
    assert not alice.receive_all_now()
    at(world, began + RATE_PAUSE)
    alice.expect(HeartbeatResponse)


def test_a_small_rate_is_kept_too(open_world):
    world = open_world('--rate', '2')
    alice = world.login('alice')
    alice.send(*[ListUsersRequest()] * 100)
    world.settle()
    begin = len(alice.receive_all_now())
    for _ in range(60):
        world.pass_time(RATE_PAUSE)
    assert begin <= 3 and len(alice.receive_all_now()) <= 2 * 3 + 1


# The store ...........................................................................................

@pytest.fixture
def store():
    with closing(Store(':memory:')) as store:
        yield store


@pytest.mark.parametrize('runs', range(RUNS_AT_ONCE - 1, RUNS_AT_ONCE + 3))
def test_so_many_rows_of_the_index_are_fetched_at_once_and_the_others_when_needed(store, monkeypatch, runs):
    monkeypatch.setattr(store_module, 'RECENT', runs * RUN)
    for _ in range(2):  # the second commit writes the index of the first
        for _ in range(runs * RUN):
            say(store, 'alice', 'bob')
        store.commit()
    fetched, ids_from = [], Store._ids_from
    monkeypatch.setattr(Store, '_ids_from', lambda self, *span: fetched.append(span[-1]) or ids_from(self, *span))
    assert ids(store.unread('bob', 0, FOREVER)) == list(range(1, 2 * runs * RUN + 1))
    assert [texts.count('[') for texts in fetched] == [min(runs, RUNS_AT_ONCE)]


@pytest.mark.parametrize('count, statements', [(ROWS_A_STATEMENT, 1), (ROWS_A_STATEMENT + 1, 2)])
def test_one_entry_more_than_a_statement_takes_is_a_second_statement(store, count, statements):
    for _ in range(count):
        say(store, 'alice', 'bob')
    written = [row for sql, row in recorded(store, store.commit) if sql.startswith('INSERT INTO log (')]
    assert len(written) == statements and len(written[0]) == 7 * ROWS_A_STATEMENT <= 999


@pytest.mark.parametrize('count, looks', [(HISTORY_STEP, 1), (HISTORY_STEP + 1, 2)])
def test_one_entry_more_than_a_step_of_history_is_a_second_look(store, count, looks):
    for _ in range(2 * HISTORY_STEP):
        say(store, 'alice', 'bob')
    store.commit()
    asked = recorded(store, lambda: itertools.islice(store.history_with('alice', 'bob', FOREVER), count))
    assert len([sql for sql, _ in asked if ' FROM log WHERE ' in sql]) == looks


# History .............................................................................................

def write(world, alice, *lengths):
    """Alice has written messages of these lengths to herself, and seen them."""
    alice.send(*[MessageRequest(to_user_id='alice', message='x' * length, client_seq=alice.next_seq())
                 for length in lengths])
    alice.receive_all()


def history(alice, **fields):
    alice.send(HistoryRequest(user_id='alice', **fields))
    answer = alice.expect(HistoryResponse)
    return len(answer.messages), answer.more


def test_a_history_has_so_many_messages_where_nobody_says_how_many(world):
    alice = world.login('alice')
    write(world, alice, *[1] * HISTORY_DEFAULT)
    assert history(alice) == (HISTORY_DEFAULT, False)
    write(world, alice, 1)
    assert history(alice) == (HISTORY_DEFAULT, True)
    assert history(alice, limit=HISTORY_DEFAULT + 1) == (HISTORY_DEFAULT + 1, False)


@pytest.mark.parametrize('more', [0, 1])
def test_a_history_of_one_byte_more_is_cut(world, more):
    frame_of_each = 2 + 250  # quotes, and what a message is taken to need besides its text
    count, rest = divmod(HISTORY_SIZE, MAX_MESSAGE + frame_of_each)
    alice = world.login('alice')
    write(world, alice, rest - frame_of_each + more, *[MAX_MESSAGE] * count)
    assert history(alice, limit=100) == ((count, True) if more else (count + 1, False))


# Who lags, and what is kept ..........................................................................

def pages_of_ticks(world, monkeypatch):
    """A list that will have for each tick how many entries each session that was fed in it got."""
    ticks, unread = [[]], world.store.unread
    world.loop.before_flush.append(lambda: ticks.append([]))
    monkeypatch.setattr(world.store, 'unread', lambda *asked: (ticks[-1].append(len(page := unread(*asked))), page)[1])
    return ticks


@pytest.mark.parametrize('count, pages', [(PAGE - 1, [[PAGE - 1]]), (PAGE, [[PAGE], [0]]), (PAGE + 1, [[PAGE], [1]])])
def test_one_entry_more_than_a_page_is_fed_a_tick_later(world, monkeypatch, count, pages):
    alice, bob = world.login('alice'), world.login('bob')
    bob.socket.close()
    world.pump(lambda: 'bob' not in world.server.sessions, lambda: 'bob is still there')
    alice.send(*[MessageRequest(to_user_id='bob', message='x', client_seq=alice.next_seq()) for _ in range(count)])
    alice.receive_all()
    ticks = pages_of_ticks(world, monkeypatch)
    bob = world.login('bob')
    assert [type(packet) for packet in bob.receive_all()] == [MessageResponse] * count
    assert [fed for fed in ticks if fed] == pages and world.server.sessions['bob'].is_live


@pytest.mark.parametrize('count, fed', [(PAGES_A_TICK, [PAGES_A_TICK]), (PAGES_A_TICK + 1, [PAGES_A_TICK, 1])])
def test_one_lagging_session_more_than_a_tick_feeds_is_fed_in_the_next(world, monkeypatch, count, fed):
    for number in range(count):
        world.login(f'user{number}')
    world.settle()
    sessions, ticks = world.server.sessions.values(), pages_of_ticks(world, monkeypatch)
    for session in sessions:
        session.is_live = False
    world.server.feed_later(*sessions)
    world.settle()
    assert [len(pages) for pages in ticks if pages] == fed and all(session.is_live for session in sessions)


def test_acknowledgements_are_written_at_their_time_and_not_before(world):
    alice = world.login('alice')
    write(world, alice, 1)
    world.pass_time(SAVE_INTERVAL)  # what the login had to write
    began = world.clock.now
    alice.send(DeliveryAck(message_id=1))

    def written():
        return world.store._value('SELECT delivered_id FROM users')
    at(world, began + SAVE_INTERVAL - 0.001)
    assert written() == 0 and world.store.delivered_id('alice') == 1
    at(world, began + SAVE_INTERVAL)
    assert written() == 1


def test_one_group_more_than_the_cache_of_members_takes_begins_it_anew(world, monkeypatch):
    monkeypatch.setattr(imserver, 'MEMBERS_CACHE', 2)
    alice, kept = world.login('alice'), []
    world.login('bob')
    for _ in range(4):
        alice.create('bob')
        kept.append(len(world.server._members))
    assert kept == [1, 2, 0, 1]


def test_the_cache_of_members_is_bounded_whatever_the_groups(world, monkeypatch):
    monkeypatch.setattr(imserver, 'MEMBERS_CACHE', 2)
    alice = world.login('alice')
    for _ in range(10):
        alice.create()
    assert len(world.server._members) <= 2


def test_one_sender_more_takes_the_place_of_who_wrote_longest_ago(open_world, monkeypatch):
    monkeypatch.setattr(imserver, 'TEMPLATES', 2)
    world = open_world()
    peers = {name: world.login(name) for name in ('alice', 'bob', 'carol', 'reader')}
    kept, made = [], []
    for name in 'alice', 'bob', 'alice', 'bob', 'carol', 'bob', 'alice':
        peers[name].say('reader', 'x')
        kept.append(world.server._template.cache_info().currsize)
        made.append(world.server._template.cache_info().misses)
    assert kept == [1, 2, 2, 2, 2, 2, 2] and made == [1, 2, 2, 2, 3, 3, 4]


# The end of the server ...............................................................................

def test_a_stop_waits_so_long_for_who_does_not_read(world, monkeypatch):
    monkeypatch.setattr(reactor, 'CLOSE_TIMEOUT', 3 * imserver.STOP_TIMEOUT)  # else that ends it
    alice, ended = blocked_reader(world), Ended(world)
    began = world.clock.now
    world.server.stop()
    at(world, began + imserver.STOP_TIMEOUT - 0.001)
    assert not ended.is_true and alice.channel.buffered
    at(world, began + imserver.STOP_TIMEOUT)
    assert ended.is_true and alice.channel.buffered


def test_a_stop_looks_again_after_its_time_whether_all_is_sent(world):
    alice, ended = blocked_reader(world), Ended(world)
    began = world.clock.now
    world.server.stop()
    world.settle()
    alice.receive_all()
    assert not ended.is_true and not any(channel.buffered for channel in world.server.listener.channels)
    at(world, began + imserver.STOP_LOOK - 0.001)
    assert not ended.is_true
    at(world, began + imserver.STOP_LOOK)
    assert ended.is_true


# The client ..........................................................................................

@pytest.fixture
def client_world():
    world = ClientWorld()
    yield world
    world.close()


def test_the_client_takes_the_longest_body_and_gives_up_at_a_longer_one(client_world):
    link = client_world.login()
    link.send_bytes(frame(18, b'{"x":"' + b'x' * (MAX_BODY_CLIENT - 8) + b'"}'))
    client_world.settle()
    assert not client_world.events
    link.send_bytes(frame(18, b'', length=MAX_BODY_CLIENT + 1))
    client_world.settle()
    assert 'is over the limit of 1048576' in client_world.of('disconnected')[0]['reason']


def test_a_list_with_one_brace_more_is_not_read(client_world):
    link = client_world.login()
    for users in imclient.MAX_USERS - 1, imclient.MAX_USERS:  # there is one brace around them
        link.send_bytes(frame(26, b'{"userList":[%s]}' % b','.join([b'{}'] * users)))
    client_world.settle()
    assert client_world.names == ['users', 'error'] and 'too many users' in client_world.events[1]['reason']
    assert len(client_world.events[0]['userList']) == imclient.MAX_USERS - 1


def text_in_a_request_of(size):
    return 'x' * (size - len(encode(MessageRequest(to_user_id='bob', message=''), 2)))


def test_a_request_of_one_byte_more_is_not_sent(client_world):
    link = client_world.login()
    for size in imclient.LARGEST_REQUEST, imclient.LARGEST_REQUEST + 1:
        client_world.client.send_message('bob', text_in_a_request_of(size))
    client_world.settle()
    assert [packet.message for packet in link.of(MessageRequest)] == [text_in_a_request_of(imclient.LARGEST_REQUEST)]
    assert [event.get('code') for event in client_world.events] == ['message_too_long']


def test_a_request_that_is_sent_is_one_that_every_server_takes(open_world):
    world, events = open_world('--max-body', str(imserver.MIN_MAX_BODY)), []
    client = imclient.Client(world.loop, *world.server.listener.address, events.append)
    client.login('bob', 'secret')
    client.send_message('bob', text_in_a_request_of(imclient.LARGEST_REQUEST))
    world.pump(lambda: client.is_logged_in and not client.pending, lambda: events)
    world.settle()
    client.close()
    world.settle()
    assert [event['event'] for event in events] == ['connected', 'login', 'error']
    assert events[-1]['code'] == 'message_too_long'  # and not because the frame was


# The command line of the client, through a pipe ......................................................

@pytest.fixture
def pipe():
    """What is written into it is standard input."""
    saved, (end, pipe) = os.dup(0), os.pipe()
    os.dup2(end, 0)
    with open(pipe, 'wb', buffering=0) as file:
        yield file
    os.dup2(saved, 0)
    os.close(saved)
    os.close(end)


@pytest.fixture
def app(client_world, pipe, monkeypatch):
    """The client of a script, on the loop of this test; nobody answers its login until `let_in`."""
    monkeypatch.setattr(imclient, 'EventLoop', lambda: client_world.loop)
    monkeypatch.setattr(imclient.os, 'isatty', lambda descriptor: False)
    monkeypatch.setattr(client_world.loop, 'stop', lambda: None)  # nobody runs it
    port = str(client_world.server.address[1])
    options = imclient.make_parser().parse_args(['--user', 'alice', '--password', 'secret', '--port', port])
    options.tls = None
    app = imclient.App(options, PlainTerminal(io.BytesIO()))
    client_world.server.on = {}
    client_world.loop.before_flush.append(app._work)
    app.client.login('alice', 'secret')
    app._begin_reading()
    client_world.settle()
    yield app
    app._watch(False)
    app.client.close()


def let_in(world, app):
    world.link.send(world.server.login_answer(LoginRequest(user_name='alice')))
    world.settle()
    assert app.client.is_logged_in


def test_a_script_gives_a_lost_server_up_at_its_time_and_not_before(client_world, app, monkeypatch, capsys):
    let_in(client_world, app)
    delays = iter([imclient.PATIENCE - 0.25, 0.25, 1.0])
    monkeypatch.setattr(imclient, 'backoff', lambda failures, rand: next(delays))
    client_world.server.go()
    client_world.settle()
    lost_at = client_world.clock.now
    at(client_world, lost_at + imclient.PATIENCE - 0.25)
    assert app._exit_code == 0 and app.client.wants_login  # that attempt failed; there is one more
    at(client_world, lost_at + imclient.PATIENCE)
    assert app._exit_code == 2 and 'cannot reach' in capsys.readouterr().err


def test_a_script_waits_so_long_for_its_answers(client_world, app, pipe):
    let_in(client_world, app)
    pipe.write(b'/msg bob hi\n')
    pipe.close()
    client_world.settle()
    began = client_world.clock.now
    at(client_world, began + imclient.END_TIMEOUT / 2)  # for a heartbeat
    at(client_world, began + imclient.END_TIMEOUT - 0.001)
    assert app._exit_code == 0 and len(app.client.pending) == 1
    at(client_world, began + imclient.END_TIMEOUT)
    assert app._exit_code == 1 and b'no answer within 10 s; not done: 1' in app._terminal._output.getvalue()


def test_so_many_groups_are_known_and_none_more(client_world, app):
    client_world.server.version = 1  # there only what was heard of is a group
    let_in(client_world, app)
    groups = [f'group {number}' for number in range(console.KNOWN_NAMES + 1)]
    client_world.send(*[JoinGroupResponse(group_id=group, success=True) for group in groups])
    assert [app._is_group(group) for group in groups] == [True] * console.KNOWN_NAMES + [False]


def test_a_group_with_a_longer_id_is_not_known(client_world, app):
    client_world.server.version = 1
    let_in(client_world, app)
    groups = ['x' * console.LONGEST_ID, 'y' * (console.LONGEST_ID + 1)]
    client_world.send(*[JoinGroupResponse(group_id=group, success=True) for group in groups])
    assert [app._is_group(group) for group in groups] == [True, False]


def test_beyond_so_many_lines_a_pipe_waits(client_world, app, pipe):
    client_world.server.on = {MessageRequest: lambda link, packet: link.send(ack_of(packet))}
    for more, read in (imclient.LINES_AHEAD - 1, -1), (1, 0), (1, 0):
        pipe.write(b'/msg bob hi\n' * more)
        client_world.settle()
        assert len(app._lines) == imclient.LINES_AHEAD + read  # they wait for the login
    let_in(client_world, app)
    assert not app._lines and len(client_world.link.of(MessageRequest)) == imclient.LINES_AHEAD + 1


# The command line of the client, for a person ........................................................

@pytest.mark.parametrize('count', [24, 25])
def test_what_had_waited_is_counted_once_none_has_come_for_its_time(client_world, app, monkeypatch, count):
    monkeypatch.setenv('LINES', '24')  # more than that is told
    told, app._waits = [], False
    monkeypatch.setattr(app._terminal, 'print', told.append)
    let_in(client_world, app)
    client_world.link.send(*[MessageResponse(from_user_id='bob', message='x', message_id=n + 1, sent_at=1)
                              for n in range(count)])
    pause = imclient.BACKLOG_PAUSE
    for seconds, is_told in (pause - 0.25, False), (0.25, count > 24):
        client_world.settle()
        client_world.clock.now += seconds
        client_world.loop.tick(0)
        assert any(f'{count} messages had waited' in text for text in told) == is_told


def test_a_server_that_does_not_close_is_left_after_its_time():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        script = [sys.executable, 'imclient.py', '--user', 'alice', '--port', str(listener.getsockname()[1])]
        with subprocess.Popen(script, cwd=TESTS.parent, env=os.environ | {'IM_PASSWORD': 'x'}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL) as process, listener.accept()[0] as sock:
            sock.sendall(encode(LoginResponse(success=True, user_name='alice', log_id='x'), 2))
            while sock.recv(4096):  # up to the end of what it sends
                pass
            begin = time.monotonic()
            assert process.wait(10) == 0
            assert imclient.LEAVE_TIMEOUT - 0.3 < time.monotonic() - begin < imclient.LEAVE_TIMEOUT + 3
