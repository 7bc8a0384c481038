"""What store.py promises, tried on real files: where a promise is about a crash, a real process dies.

Held here: one transaction a tick, and nothing believed before it is on disk; a commit that fails as if the
tick had never been; the ids; who reads what, in what order and page by page, by hand and against a model
that keeps no spans at all; histories; groups; passwords and tokens; what was delivered; which files are
taken and which refused; what a question costs in a long log; caches that may be forgotten at any time.

The helpers come first.  A file that a Store holds is never read here by the process that holds it: on POSIX
systems to close *any* descriptor of a file gives up all locks that the process has on it.
"""
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import unicodedata
from contextlib import closing, suppress
from pathlib import Path

import pytest

import store as store_module
from store import (
    APPLICATION_ID, FOREVER, RECENT, ROWS_A_STATEMENT, RUN, SCHEMA_VERSION, TOKEN_LIFETIME, Entry, Kind, Store,
    StoreError, direct_stream, hash_password, is_valid_name, name_key, normalize, password_matches)

# Helpers: to write ...................................................................................

COST = 10  # the cheapest that the server takes: 2**10
PASSWORD = hash_password('secret', COST)
GROUP = '9f8e7d6c'
LONG = 'x' * 100_000  # more than any page has room for


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'im.db')


@pytest.fixture
def store(path):
    store = Store(path, 'off')
    yield store
    store.close()


def ignore(is_durable):
    """For those who don't wait for the commit."""


def say(store, sender, recipient, text='hi', seq=None, then=ignore):
    entry = Entry(Kind.MESSAGE, direct_stream(sender, recipient), sender, text, seq, 0)
    store.append(entry, then)
    return entry


def tell(store, sender, group=GROUP, text='hello', seq=None, then=ignore):
    entry = Entry(Kind.GROUP_MESSAGE, group, sender, text, seq, 0)
    store.append(entry, then)
    return entry


def create(store, creator, *members, group=GROUP, name=None, then=ignore):
    entry = Entry(Kind.CREATE_GROUP, group, creator, f'{name} {members}', None, 0)
    store.create_group(entry, name, [creator, *members], then)
    return entry


def join(store, user, group=GROUP, then=ignore):
    entry = Entry(Kind.JOIN_GROUP, group, user, '', None, 0)
    store.join_group(entry, then)
    return entry


def leave(store, user, group=GROUP, then=ignore):
    entry = Entry(Kind.QUIT_GROUP, group, user, '', None, 0)
    store.quit_group(entry, then)
    return entry


def add_users(store, *names):
    for name in names:
        store.add_user(name, name.casefold(), PASSWORD)


def ascii_start(text):
    """The name of a test's case: short, and fit for any terminal."""
    return ascii(text[:20])


# Helpers: to read ....................................................................................

def ids(entries):
    return [entry.message_id for entry in entries]


def unread(store, user, after_id=0, limit=10**6):
    return ids(store.unread(user, after_id, limit))


def value(store, sql):
    return store._db.execute(sql).fetchone()[0]


def rows(store):
    """How much is in the file, table by table; the indexes are not asked."""
    return {table: value(store, f'SELECT count(*) FROM {table} NOT INDEXED')
            for table in ('about', 'users', 'groups', 'readers', 'log')}


def steps(store, question):
    """How many steps of SQLite's machine it takes to answer: a cost that no clock has to measure."""
    taken = []
    store._db.set_progress_handler(lambda: taken.append(1), 1)
    try:
        question()
    finally:
        store._db.set_progress_handler(None, 1)
    return len(taken)


class Recorder:
    """Stands in for a store's connection and remembers what it was asked."""

    def __init__(self, connection):
        self.connection = connection
        self.asked = []

    def execute(self, sql, parameters=()):
        self.asked.append((sql, parameters))
        return self.connection.execute(sql, parameters)

    def executemany(self, sql, rows):
        rows = list(rows)
        self.asked.append((sql, rows[0]))
        return self.connection.executemany(sql, rows)

    def __getattr__(self, name):
        return getattr(self.connection, name)


def recorded(store, question):
    """Answer the question; return the SQL, with its parameters, that this took."""
    connection = store._db
    store._db = recorder = Recorder(connection)
    try:
        answer = question()
        if hasattr(answer, '__next__'):
            list(answer)
    finally:
        store._db = connection
    return recorder.asked


# Helpers: to break ...................................................................................

def fill_disk(store):
    """From now on the file cannot grow.  What fits into the pages it has is still taken."""
    store._db.execute(f'PRAGMA max_page_count = {value(store, "PRAGMA page_count")}')


def make_room(store):
    store._db.execute('PRAGMA max_page_count = 1000000')


def poison(store, how='ABORT'):
    """From now on no entry that says 'poison' can be written.  Seen by this connection alone."""
    store._db.execute(f'''CREATE TEMP TRIGGER poison BEFORE INSERT ON log WHEN new.text = 'poison'
                          BEGIN SELECT RAISE({how}, 'poisoned'); END''')


CHILD = '''
import os, signal, sys, time
from store import *

def say(sender, recipient, text, then=lambda is_durable: None):
    store.append(Entry(Kind.MESSAGE, direct_stream(sender, recipient), sender, text, None, 0), then)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def leave(*_):
    os._exit(1)

path = sys.argv[1]
'''


def start(path, code):
    """A process that runs `code` behind what CHILD defines."""
    environment = {**os.environ, 'PYTHONPATH': os.path.dirname(store_module.__file__)}
    return subprocess.Popen([sys.executable, '-c', CHILD + code, path], env=environment, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(path, code):
    """Run `code` in a process of its own to its end; return what it printed and its exit status."""
    with start(path, code) as child:
        output, errors = child.communicate(timeout=20)
    assert 'Traceback' not in errors, errors
    return output, child.returncode


def content(folder):
    """Every file there with its bytes.  Not for a folder whose file a Store of this process holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refusal(path):
    """Open what must be refused, and left as it was; return what is said of it."""
    folder = Path(path).parent
    before = content(folder) if folder.is_dir() else None
    with pytest.raises(StoreError) as caught:
        Store(path).close()
    assert before == (content(folder) if folder.is_dir() else None)
    text = str(caught.value)
    assert path in text and '\n' not in text and text.isprintable()
    return text


def make_database(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def filled_file(path, messages=300):
    """A database with something in every table, closed; return its bytes and its rows."""
    with closing(Store(path, 'off')) as store:
        add_users(store, 'alice', 'bob', 'carol')
        create(store, 'alice', 'bob', name='tea')
        for number in range(1, messages):
            say(store, 'alice', 'bob', f'text {number}', number)
        store.commit()
        found = rows(store)
    return Path(path).read_bytes(), found


def flipped(data, position, mask=0xFF):
    return data[:position] + bytes((data[position] ^ mask,)) + data[position + 1:]


# One transaction a tick ..............................................................................

def test_then_is_called_by_commit_alone_in_order_with_true(store):
    called = []
    say(store, 'alice', 'bob', then=lambda is_durable: called.append(('first', is_durable)))
    store.after_commit(lambda is_durable: called.append(('second', is_durable)))
    create(store, 'alice', 'bob', then=lambda is_durable: called.append(('third', is_durable)))
    join(store, 'carol', then=lambda is_durable: called.append(('fourth', is_durable)))
    leave(store, 'bob', then=lambda is_durable: called.append(('fifth', is_durable)))
    store.after_commit(lambda is_durable: called.append(('sixth', is_durable)))
    assert called == []
    store.commit()
    assert called == [(name, True) for name in ('first', 'second', 'third', 'fourth', 'fifth', 'sixth')]
    store.commit()
    assert len(called) == 6


def test_commit_returns_the_entries_of_the_tick_in_order(store):
    first, second = say(store, 'alice', 'bob'), say(store, 'bob', 'alice')
    assert store.commit() == [first, second]
    assert store.commit() == []
    third = say(store, 'alice', 'bob')
    assert store.commit() == [third]


def test_the_entry_is_committed_when_then_is_called(store):
    seen = []
    entry = say(store, 'alice', 'bob', seq=7, then=lambda is_durable: seen.append(
        (store.is_durable(entry), store.committed_id, unread(store, 'bob'), store.find_entry('alice', 7))))
    assert not store.is_durable(entry)
    store.commit()
    assert seen == [(True, 1, [1], entry)]


def test_an_entry_that_was_never_appended_is_not_durable(store):
    assert not store.is_durable(Entry(Kind.MESSAGE, 'alice bob', 'alice', 'hi', None, 0))


def test_what_a_then_appends_belongs_to_the_next_tick(store):
    answers = []
    say(store, 'alice', 'bob', 'ping', then=lambda is_durable: say(store, 'bob', 'alice', 'pong',
                                                                   then=answers.append))
    assert ids(store.commit()) == [1]
    assert answers == []
    assert ids(store.commit()) == [2]
    assert answers == [True]
    assert [entry.text for entry in store.unread('alice', 0, 10)] == ['pong']


def test_a_then_that_raises_is_logged_and_the_others_still_run(store, caplog):
    called = []

    def fail(is_durable):
        raise RuntimeError('on purpose')

    say(store, 'alice', 'bob', then=called.append)
    say(store, 'alice', 'bob', then=fail)
    say(store, 'alice', 'bob', then=called.append)
    assert len(store.commit()) == 3
    assert called == [True, True]
    record, = caplog.records
    assert record.levelname == 'ERROR' and 'fail' in record.message
    assert str(record.exc_info[1]) == 'on purpose'


def test_a_tick_is_one_transaction_and_one_without_work_is_none(store):
    statements = []
    store._db.set_trace_callback(statements.append)
    for number in range(20):
        say(store, 'alice', f'user{number}')
    create(store, 'alice', 'bob')
    leave(store, 'bob')
    add_users(store, 'alice')
    store.set_delivered('alice', 3)
    store.save_delivered()
    assert 'COMMIT' not in statements
    store.commit()
    assert [text for text in statements if text.startswith(('BEGIN', 'COMMIT'))] == [
        'BEGIN IMMEDIATE', 'COMMIT']
    statements.clear()
    store.commit()
    assert statements == []


@pytest.mark.parametrize('durability', ['full', 'normal', 'off'])
@pytest.mark.parametrize('death', ['leave', 'die'])
def test_what_is_committed_survives_the_death_of_the_process_and_nothing_else_does(path, durability, death):
    output, status = run(path, f'''
store = Store(path, {durability!r})
store.add_user('alice', 'alice', PasswordHash(10, b'salt', b'digest'))
say('alice', 'bob', 'kept')
store.commit()
store.add_user('carol', 'carol', PasswordHash(10, b'salt', b'digest'))
say('alice', 'bob', 'lost')
say('alice', 'dave', 'lost too')
store.create_group(Entry(Kind.CREATE_GROUP, '9f8e7d6c', 'alice', '', None, 0), None, ['bob'], print)
{death}()''')
    assert output == '' and status == (1 if death == 'leave' else -9)
    with closing(Store(path)) as store:
        assert [entry.text for entry in store.unread('bob', 0, 10)] == ['kept']
        assert store.unread('dave', 0, 10) == []
        assert store.committed_id == 1
        assert store.list_users(10) == ['alice']
        assert not store.group_exists(GROUP)


@pytest.mark.parametrize('durability', ['full', 'normal', 'off'])
@pytest.mark.parametrize('death', ['leave', 'die'])
def test_what_was_called_durable_is_there_although_the_process_died_that_moment(path, durability, death):
    run(path, f'''
store = Store(path, {durability!r})
for number in range(100):
    say('alice', 'bob', str(number), {death} if number == 0 else lambda is_durable: None)
store.commit()''')
    with closing(Store(path)) as store:
        assert [entry.text for entry in store.unread('bob', 0, 1000)] == [str(n) for n in range(100)]


@pytest.mark.parametrize('durability, level', [('full', 2), ('normal', 1), ('off', 0)])
def test_durability_decides_what_sqlite_waits_for(path, durability, level):
    with closing(Store(path, durability)) as store:
        assert value(store, 'PRAGMA synchronous') == level
        assert value(store, 'PRAGMA journal_mode') == 'wal'


def test_durability_is_full_unless_told_otherwise(path):
    with closing(Store(path)) as store:
        assert value(store, 'PRAGMA synchronous') == 2


def test_close_commits_what_was_collected(path):
    called = []
    store = Store(path)
    add_users(store, 'bob')
    say(store, 'alice', 'bob', then=called.append)
    store.set_delivered('bob', 1)
    store.close()
    assert called == [True]
    with closing(Store(path)) as store:
        assert unread(store, 'bob') == [1]
        assert store.delivered_id('bob') == 1


# A commit that fails .................................................................................

def test_on_a_full_disk_everyone_hears_false_and_nothing_is_kept(store, caplog):
    say(store, 'alice', 'bob')
    store.commit()
    before = rows(store)
    fill_disk(store)
    answers = []
    say(store, 'alice', 'bob', 'small', then=answers.append)
    store.after_commit(answers.append)
    add_users(store, 'carol')
    create(store, 'alice', 'bob', then=answers.append)
    say(store, 'alice', 'bob', LONG, then=answers.append)
    assert store.commit() == []
    assert answers == [False] * 4
    assert store.committed_id == 1
    assert rows(store) == before
    assert unread(store, 'bob') == [1]
    assert [record.levelname for record in caplog.records] == ['ERROR']


def test_it_works_again_when_there_is_room_and_the_ids_are_used_again(store):
    say(store, 'alice', 'bob')
    store.commit()
    fill_disk(store)
    failed = say(store, 'alice', 'bob', LONG)
    store.commit()
    assert failed.message_id == 2 and not store.is_durable(failed)
    make_room(store)
    answers = []
    again = say(store, 'alice', 'bob', LONG, then=answers.append)
    assert store.commit() == [again]
    assert answers == [True] and again.message_id == 2 and unread(store, 'bob') == [1, 2]


def test_what_still_fits_is_taken_while_the_disk_is_full(store):
    say(store, 'alice', 'bob', seq=1)
    store.commit()
    fill_disk(store)
    say(store, 'alice', 'bob', LONG, seq=2)
    assert store.commit() == []
    say(store, 'alice', 'bob', 'short', seq=2)
    assert ids(store.commit()) == [2]


def test_the_numbers_of_a_failed_tick_are_forgotten(store):
    say(store, 'alice', 'bob', seq=5)
    store.commit()
    fill_disk(store)
    say(store, 'alice', 'bob', LONG, seq=6)
    say(store, 'carol', 'bob', 'hi', seq=1)
    assert store.last_client_seq('alice') == 6
    store.commit()
    assert store.last_client_seq('alice') == 5
    assert store.last_client_seq('carol') == 0
    assert store.find_entry('alice', 6) is None
    assert store.find_entry('carol', 1) is None
    assert store.find_entry('alice', 5).message_id == 1


def test_a_registration_that_failed_never_happened(store):
    fill_disk(store)
    add_users(store, 'alice')
    assert store.user_exists('alice')  # in the middle of its tick it counts
    say(store, 'alice', 'bob', LONG)
    store.commit()
    assert not store.user_exists('alice')
    assert not store.name_is_taken('alice')
    assert store.password_of('alice') is None
    make_room(store)
    add_users(store, 'alice')
    store.commit()
    assert store.user_exists('alice')


def test_who_was_first_written_to_in_a_failed_tick_is_reached_by_the_next(store):
    fill_disk(store)
    say(store, 'alice', 'bob', LONG)
    store.commit()
    make_room(store)
    say(store, 'alice', 'bob', 'again')
    store.commit()
    assert [entry.text for entry in store.unread('bob', 0, 10)] == ['again']


def test_membership_after_a_failed_tick_is_what_it_was(store):
    create(store, 'alice', 'bob')
    store.commit()
    fill_disk(store)
    leave(store, 'bob')
    join(store, 'carol')
    create(store, 'dave', group='00000001', name='new')
    assert [store.is_member(user, GROUP) for user in ('bob', 'carol')] == [False, True]
    say(store, 'alice', 'bob', LONG)
    store.commit()
    assert store.members(GROUP, FOREVER - 1) == ['alice', 'bob']
    assert not store.was_member('carol', GROUP)
    assert not store.group_exists('00000001')
    assert store.groups_of('dave') == []


@pytest.mark.parametrize('how', ['ABORT', 'FAIL', 'ROLLBACK'])
def test_one_row_that_fails_undoes_those_before_it_and_those_after(store, how):
    poison(store, how)
    answers = []
    for text in ('before', 'poison', 'after'):
        say(store, 'alice', 'bob', text, then=answers.append)
    assert store.commit() == []
    assert answers == [False] * 3
    assert rows(store)['log'] == rows(store)['readers'] == 0
    say(store, 'alice', 'bob', 'healthy')
    assert ids(store.commit()) == [1]
    assert unread(store, 'bob') == [1]


def test_a_failure_in_the_middle_of_a_tick_is_told_at_its_end(store):
    add_users(store, 'alice')
    store.commit()
    answers = []
    say(store, 'alice', 'bob', then=answers.append)
    add_users(store, 'alice')  # there is one already: this statement fails
    add_users(store, 'carol')
    say(store, 'alice', 'dave', then=answers.append)
    assert answers == []
    assert store.commit() == []
    assert answers == [False, False]
    assert store.list_users(10) == ['alice']
    assert rows(store)['readers'] == 0
    say(store, 'alice', 'dave')
    store.commit()
    assert unread(store, 'dave') == [1]


def test_what_is_logged_of_a_failed_tick_is_what_went_wrong_first(store, caplog):
    add_users(store, 'alice')
    store.commit()
    poison(store)
    add_users(store, 'alice')
    say(store, 'alice', 'bob', 'poison')
    store.commit()
    message, = caplog.messages
    assert 'users' in message and 'poisoned' not in message


def test_a_number_used_twice_fails_the_tick(store):
    say(store, 'alice', 'bob', 'one', seq=1)
    store.commit()
    answers = []
    say(store, 'alice', 'bob', 'two', seq=1, then=answers.append)
    assert store.commit() == []
    assert answers == [False]
    assert store.find_entry('alice', 1).text == 'one'


def test_a_commit_that_fails_at_its_very_end_is_undone_too(store):
    store._db.execute('PRAGMA foreign_keys = ON')
    store._db.execute('CREATE TABLE late (id REFERENCES log (message_id) DEFERRABLE INITIALLY DEFERRED)')
    answers = []
    say(store, 'alice', 'bob', then=answers.append)
    store._write('INSERT INTO late VALUES (?)', (99,))  # judged by COMMIT alone
    assert store.commit() == []
    assert answers == [False]
    assert not store._db.in_transaction
    say(store, 'alice', 'bob', then=answers.append)
    assert ids(store.commit()) == [1]
    assert answers == [False, True]


def test_a_transaction_that_cannot_begin_fails_the_tick(store):
    answers = []
    store._db.execute('PRAGMA query_only = ON')
    say(store, 'alice', 'bob', then=answers.append)
    store.commit()
    store._db.execute('PRAGMA query_only = OFF')
    say(store, 'alice', 'bob', then=answers.append)
    store.commit()
    assert answers == [False, True]
    assert unread(store, 'bob') == [1]


def test_a_half_read_history_does_not_hinder_a_tick_that_fails(store):
    for _ in range(3):
        say(store, 'alice', 'bob')
    store.commit()
    history = store.history_with('alice', 'bob', FOREVER)
    assert next(history).message_id == 3
    fill_disk(store)
    say(store, 'alice', 'bob', LONG)
    assert store.commit() == []
    say(store, 'alice', 'bob', 'short')
    assert ids(store.commit()) == [4]


@pytest.mark.parametrize('text, seq', [('\ud800', 1), ('hi', 2**63)], ids=['half a character', 'too large'])
def test_what_no_row_can_hold_fails_its_tick_and_no_other(path, text, seq):
    store, answers = Store(path, 'off'), []
    try:
        say(store, 'alice', 'bob', text, seq, then=answers.append)
        assert store.commit() == []
        assert answers == [False]
        say(store, 'alice', 'bob', then=answers.append)
        assert ids(store.commit()) == [1]
    finally:
        store._db.close()


# Ids and numbers .....................................................................................

def test_ids_grow_by_one_whatever_the_kind(store):
    made = [say(store, 'alice', 'bob'), create(store, 'alice', 'bob'), tell(store, 'bob'),
            join(store, 'carol'), leave(store, 'bob')]
    assert ids(made) == [1, 2, 3, 4, 5]
    assert store.committed_id == 0
    store.commit()
    assert store.committed_id == 5
    assert say(store, 'alice', 'bob').message_id == 6


def test_ids_go_on_after_reopening(path):
    with closing(Store(path)) as store:
        assert store.committed_id == 0
        say(store, 'alice', 'bob')
        say(store, 'alice', 'bob')
    with closing(Store(path)) as store:
        assert store.committed_id == 2
        assert say(store, 'alice', 'bob').message_id == 3
        assert unread(store, 'bob') == [1, 2]


@pytest.mark.parametrize('text', [
    'hi', '', '张三 🀄', "'; DROP TABLE log; --", 'a\0b', 'two\nlines', '1', LONG], ids=ascii_start)
def test_an_entry_comes_back_as_it_was_written(path, text):
    entry = Entry(Kind.MESSAGE, 'alice 张三', 'alice', text, 2**63 - 1, 1_700_000_000_123)
    with closing(Store(path, 'off')) as store:
        store.append(entry, ignore)
        assert entry.recipient == '张三'
    with closing(Store(path, 'off')) as store:
        assert store.unread('张三', 0, 10) == [entry]
        assert store.find_entry('alice', 2**63 - 1) == entry
        assert isinstance(store.find_entry('alice', 2**63 - 1).kind, Kind)


def test_find_entry_knows_what_is_pending_and_what_is_committed(path):
    with closing(Store(path)) as store:
        first = say(store, 'alice', 'bob', 'first', seq=3)
        assert store.find_entry('alice', 3) is first
        store.commit()
        second = say(store, 'alice', 'bob', 'second', seq=4)
        assert store.find_entry('alice', 3) == first
        assert store.find_entry('alice', 4) is second
        for sender, seq in (('bob', 3), ('alice', 2), ('alice', 5), ('nobody', 1)):
            assert store.find_entry(sender, seq) is None
    with closing(Store(path)) as store:
        assert store.find_entry('alice', 4) == second


def test_last_client_seq_is_the_highest_that_made_an_entry(path):
    with closing(Store(path)) as store:
        assert store.last_client_seq('alice') == 0
        say(store, 'alice', 'bob', seq=2)
        assert store.last_client_seq('alice') == 2
        tell(store, 'alice', seq=9)
        assert store.last_client_seq('alice') == 9
        store.commit()
        say(store, 'alice', 'bob', seq=10)
        assert store.last_client_seq('alice') == 10
        assert store.last_client_seq('bob') == 0
    with closing(Store(path)) as store:
        assert store.last_client_seq('alice') == 10
        assert store.last_client_seq('bob') == 0


def test_entries_without_a_number_do_not_disturb_those_with(path):
    with closing(Store(path)) as store:
        say(store, 'alice', 'bob', seq=4)
        say(store, 'alice', 'bob')
        say(store, 'alice', 'bob')
        assert store.last_client_seq('alice') == 4
        assert len(store.commit()) == 3
    with closing(Store(path)) as store:
        assert store.last_client_seq('alice') == 4


def test_two_users_have_numbers_of_their_own(store):
    say(store, 'alice', 'bob', 'from alice', seq=1)
    say(store, 'bob', 'alice', 'from bob', seq=1)
    assert len(store.commit()) == 2
    assert store.find_entry('alice', 1).text == 'from alice'
    assert store.find_entry('bob', 1).text == 'from bob'


@pytest.mark.parametrize('kind', [Kind.MESSAGE, Kind.GROUP_MESSAGE, Kind.JOIN_GROUP, Kind.QUIT_GROUP])
def test_a_repeat_has_the_same_kind_target_and_text(kind):
    def entry(kind=kind, stream='target', text='text', sent_at=0, message_id=0):
        return Entry(kind, stream, 'alice', text, 1, sent_at, message_id)

    assert entry(message_id=5).is_repeated_by(entry(sent_at=99))
    assert not entry().is_repeated_by(entry(stream='other'))
    assert not entry().is_repeated_by(entry(text='other'))
    for other in set(Kind) - {kind}:
        assert not entry().is_repeated_by(entry(kind=other))


def test_a_creation_is_repeated_by_one_with_the_same_text_although_its_group_is_new():
    first = Entry(Kind.CREATE_GROUP, '00000001', 'alice', 'tea bob', 1, 0, 5)
    assert first.is_repeated_by(Entry(Kind.CREATE_GROUP, '00000002', 'alice', 'tea bob', 1, 9))
    assert not first.is_repeated_by(Entry(Kind.CREATE_GROUP, '00000001', 'alice', 'tea carol', 1, 9))
    assert not first.is_repeated_by(Entry(Kind.JOIN_GROUP, '00000001', 'alice', 'tea bob', 1, 9))


# Unread ..............................................................................................

def test_a_message_is_read_by_its_recipient_alone(store):
    say(store, 'alice', 'bob')
    store.commit()
    assert unread(store, 'bob') == [1]
    assert unread(store, 'alice') == unread(store, 'carol') == unread(store, 'alice bob') == []


def test_messages_of_several_senders_come_in_the_order_of_their_ids(store):
    for sender in ('carol', 'alice', 'dave', 'alice', 'carol', 'bob'):
        say(store, sender, 'bob', f'from {sender}')
        say(store, 'bob', sender)
    store.commit()
    entries = store.unread('bob', 0, 100)
    assert ids(entries) == [1, 3, 5, 7, 9, 11, 12]  # 11 and 12: with himself, there and back
    assert [entry.sender for entry in entries] == ['carol', 'alice', 'dave', 'alice', 'carol', 'bob', 'bob']


def test_unread_begins_behind_the_id_it_is_given(store):
    for _ in range(5):
        say(store, 'alice', 'bob')
    store.commit()
    assert unread(store, 'bob', 2) == [3, 4, 5]
    assert unread(store, 'bob', 5) == unread(store, 'bob', FOREVER - 1) == []


def test_only_committed_entries_are_unread(store):
    create(store, 'alice', 'bob')
    say(store, 'alice', 'bob')
    tell(store, 'alice')
    assert unread(store, 'bob') == []
    store.commit()
    assert unread(store, 'bob') == [1, 2, 3]
    say(store, 'alice', 'bob')
    assert unread(store, 'bob') == [1, 2, 3]


def test_a_creation_is_read_by_the_others_and_not_by_the_creator(store):
    say(store, 'alice', 'bob')
    created = create(store, 'alice', 'bob', 'carol')
    told = tell(store, 'alice')
    store.commit()
    assert unread(store, 'alice') == [told.message_id]
    assert unread(store, 'carol') == [created.message_id, told.message_id]


def test_who_is_named_twice_in_a_creation_reads_once(store):
    create(store, 'alice', 'bob', 'bob', 'alice')
    tell(store, 'bob')
    assert len(store.commit()) == 2
    assert unread(store, 'bob') == [1, 2]
    assert unread(store, 'alice') == [2]


def test_who_joins_reads_what_comes_after_and_the_others_read_the_join(store):
    create(store, 'alice')
    tell(store, 'alice')  # 2: before carol
    join(store, 'carol')  # 3
    tell(store, 'alice')  # 4
    store.commit()
    assert unread(store, 'carol') == [4]
    assert unread(store, 'alice') == [2, 3, 4]


def test_who_quits_reads_what_came_before_and_the_others_read_the_quit(store):
    create(store, 'alice', 'bob')
    tell(store, 'alice')  # 2
    leave(store, 'bob')  # 3
    tell(store, 'alice')  # 4: after bob
    store.commit()
    assert unread(store, 'bob') == [1, 2]
    assert unread(store, 'alice') == [2, 3, 4]


def test_who_comes_back_does_not_read_what_was_said_meanwhile(store):
    create(store, 'alice', 'bob')  # 1
    tell(store, 'alice')  # 2
    leave(store, 'bob')  # 3
    tell(store, 'alice')  # 4: unseen
    store.commit()
    join(store, 'bob')  # 5
    tell(store, 'bob')  # 6
    leave(store, 'bob')  # 7
    tell(store, 'alice')  # 8: unseen
    join(store, 'bob')  # 9
    tell(store, 'alice')  # 10
    store.commit()
    assert unread(store, 'bob') == [1, 2, 6, 10]
    assert [unread(store, 'bob', after) for after in (1, 2, 5, 6, 9)] == [
        [2, 6, 10], [6, 10], [6, 10], [10], [10]]
    assert unread(store, 'alice') == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_to_quit_one_group_leaves_the_others_alone(store):
    for group in ('00000001', '00000002'):
        create(store, 'alice', 'bob', group=group)
    leave(store, 'bob', '00000001')
    for group in ('00000001', '00000002'):
        tell(store, 'alice', group)
    store.commit()
    assert unread(store, 'bob') == [1, 2, 5]
    assert unread(store, 'alice') == [3, 4, 5]


def test_a_group_whose_last_member_left_can_be_joined_again(store):
    create(store, 'alice')
    leave(store, 'alice')
    join(store, 'alice')
    tell(store, 'alice')
    store.commit()
    assert unread(store, 'alice') == [4]
    assert store.members(GROUP, 4) == ['alice']


def test_pages_of_every_size_make_the_same_whole(store):
    create(store, 'alice', 'bob', 'carol')
    for number in range(6):
        say(store, 'alice', 'bob')
        tell(store, 'carol')
        say(store, 'carol', 'bob')
        (leave, join)[number % 2](store, 'bob')
        tell(store, 'alice')
    store.commit()
    whole = store.unread('bob', 0, 10**6)
    assert len(whole) == 19
    for size in range(1, len(whole) + 2):
        pages, after_id = [], 0
        while page := store.unread('bob', after_id, size):
            assert len(page) <= size
            pages += page
            after_id = page[-1].message_id
            if len(page) < size:
                assert unread(store, 'bob', after_id) == []
        assert pages == whole


# Unread, against a model .............................................................................

class Model:
    """The rules once more, as simply as can be: of each entry it is known at once who reads it."""

    def __init__(self):
        self.audiences = []  # of each entry, by its id
        self.members = {}  # of each group, now
        self.ever = {}  # of each group, at any time
        self.moments = []  # after each entry: its group, or None, and the group's members
        self.seqs = {}

    def add(self, audience, group=None):
        self.audiences.append(set(audience))
        self.moments.append((group, sorted(self.members[group]) if group else []))

    def say(self, recipient):
        self.add({recipient})

    def create(self, group, creator, others):
        self.members[group] = {creator, *others}
        self.ever[group] = {creator, *others}
        self.add(self.members[group] - {creator}, group)

    def tell(self, group):
        self.add(self.members[group], group)

    def join(self, group, user):
        before = set(self.members[group])
        self.members[group].add(user)
        self.ever[group].add(user)
        self.add(before, group)

    def leave(self, group, user):
        self.members[group].remove(user)
        self.add(self.members[group], group)

    def copy(self):
        copy = Model()
        copy.audiences, copy.moments = list(self.audiences), list(self.moments)
        copy.members = {group: set(members) for group, members in self.members.items()}
        copy.ever = {group: set(members) for group, members in self.ever.items()}
        copy.seqs = dict(self.seqs)
        return copy

    def unread(self, user, after_id):
        return [number for number, audience in enumerate(self.audiences, 1)
                if number > after_id and user in audience]


class Walk:
    """A store and its model, changed at random in the same way."""
    USERS = ['alice', 'bob', 'carol', 'dave', '张三']

    def __init__(self, path, seed):
        self.path, self.random = path, random.Random(seed)
        self.model = Model()
        self.saved = self.model.copy()  # as it was at the last commit
        self.open()

    def open(self):
        self.store = Store(self.path, 'off')
        poison(self.store)

    def change(self):
        """One thing that the server would allow, chosen at random."""
        user, other = self.random.choices(self.USERS, k=2)
        mine = sorted(group for group, members in self.model.members.items() if user in members)
        foreign = sorted(set(self.model.members) - set(mine))
        kind = self.random.choice('say say say tell tell tell tell join join leave create'.split())
        if kind == 'tell' and mine:
            tell(self.store, user, group := self.random.choice(mine))
            self.model.tell(group)
        elif kind == 'join' and foreign:
            join(self.store, user, group := self.random.choice(foreign))
            self.model.join(group, user)
        elif kind == 'leave' and mine:
            leave(self.store, user, group := self.random.choice(mine))
            self.model.leave(group, user)
        elif kind == 'create' and len(self.model.members) < 6:
            others = self.random.sample(self.USERS, self.random.randrange(4))
            group = f'{len(self.model.audiences):08x}'
            create(self.store, user, *others, group=group)
            self.model.create(group, user, others)
        else:
            seq = self.model.seqs[user] = self.model.seqs.get(user, 0) + self.random.randrange(1, 3)
            say(self.store, user, other, seq=seq)
            self.model.say(other)

    def end_tick(self):
        if self.random.random() < 0.2:
            say(self.store, 'alice', 'bob', 'poison')
            assert self.store.commit() == []
            self.model = self.saved
        else:
            self.store.commit()
        self.saved = self.model.copy()
        if self.random.random() < 0.2:
            self.store.close()
            self.open()

    def compare(self):
        store, model, last = self.store, self.model, len(self.model.audiences)
        assert store.committed_id == last
        for user in self.USERS:
            for after_id in (0, last // 2, self.random.randrange(last + 1), last - 1, last):
                assert unread(store, user, after_id) == model.unread(user, after_id)
            page = unread(store, user, last // 3, 7)
            assert page == model.unread(user, last // 3)[:7]
            assert store.last_client_seq(user) == model.seqs.get(user, 0)
            assert [row[0] for row in store.groups_of(user)] == sorted(
                group for group, members in model.members.items() if user in members)
        for group, members in model.members.items():
            assert store.count_members(group) == len(members)
            for user in self.USERS:
                assert store.is_member(user, group) == (user in members)
                assert store.was_member(user, group) == (user in model.ever[group])
        for number, (group, members) in enumerate(model.moments, 1):
            if group and self.random.random() < 0.1:
                assert store.members(group, number) == members


@pytest.mark.parametrize('seed', range(4))
def test_a_random_walk_agrees_with_a_model_of_the_rules(path, seed):
    walk = Walk(path, seed)
    try:
        for _ in range(60):
            for _ in range(walk.random.randrange(1, 16)):
                walk.change()
            walk.end_tick()
            walk.compare()
        assert walk.store.committed_id > 200
    finally:
        walk.store.close()


# Histories ...........................................................................................

def test_the_history_of_two_has_both_directions_the_newest_first(store):
    for sender, recipient in (('alice', 'bob'), ('bob', 'alice'), ('alice', 'carol'), ('carol', 'bob'),
                              ('alice', 'bob'), ('bob', 'bob'), ('alice', 'alice')):
        say(store, sender, recipient)
    store.commit()
    assert ids(store.history_with('alice', 'bob', FOREVER)) == [5, 2, 1]
    assert ids(store.history_with('bob', 'alice', FOREVER)) == [5, 2, 1]
    assert ids(store.history_with('alice', 'nobody', FOREVER)) == []


def test_a_history_ends_below_the_id_it_is_given(store):
    for sender, recipient in (('alice', 'bob'), ('bob', 'alice')) * 3:
        say(store, sender, recipient)
    store.commit()
    assert ids(store.history_with('alice', 'bob', 4)) == [3, 2, 1]
    assert ids(store.history_with('alice', 'bob', 1)) == []


def test_the_history_with_oneself_has_each_message_once(store):
    say(store, 'alice', 'alice')
    say(store, 'alice', 'alice')
    store.commit()
    assert ids(store.history_with('alice', 'alice', FOREVER)) == [2, 1]


def test_what_is_pending_is_in_no_history(store):
    create(store, 'alice', 'bob')
    store.commit()
    say(store, 'alice', 'bob')
    tell(store, 'alice')
    assert ids(store.history_with('alice', 'bob', FOREVER)) == []
    assert ids(store.history_of_group('alice', GROUP, FOREVER)) == []


def test_the_history_of_a_group_has_messages_only(store):
    create(store, 'alice', 'bob')  # 1
    tell(store, 'alice')  # 2
    join(store, 'carol')  # 3
    tell(store, 'bob')  # 4
    leave(store, 'bob')  # 5
    tell(store, 'carol')  # 6
    store.commit()
    assert ids(store.history_of_group('alice', GROUP, FOREVER)) == [6, 4, 2]
    assert ids(store.history_of_group('alice', GROUP, 6)) == [4, 2]
    assert ids(store.history_of_group('alice', GROUP, 2)) == []
    assert ids(store.history_of_group('alice', '00000000', FOREVER)) == []


def test_the_history_of_a_group_is_that_of_ones_own_time_in_it(store):
    create(store, 'alice', 'bob')  # 1
    tell(store, 'alice')  # 2
    leave(store, 'bob')  # 3
    tell(store, 'alice')  # 4
    join(store, 'bob')  # 5
    tell(store, 'alice')  # 6
    tell(store, 'alice')  # 7
    leave(store, 'bob')  # 8
    tell(store, 'alice')  # 9
    join(store, 'carol')  # 10
    store.commit()
    assert ids(store.history_of_group('bob', GROUP, FOREVER)) == [7, 6, 2]  # a former member
    assert [ids(store.history_of_group('bob', GROUP, before)) for before in (8, 7, 6, 4, 3, 2)] == [
        [7, 6, 2], [6, 2], [2], [2], [2], []]
    assert ids(store.history_of_group('carol', GROUP, FOREVER)) == []
    assert ids(store.history_of_group('dave', GROUP, FOREVER)) == []


def test_a_history_is_read_only_as_far_as_it_is_asked_for(store):
    create(store, 'alice', 'bob')
    for _ in range(2000):
        say(store, 'alice', 'bob')
        tell(store, 'bob')
    store.commit()

    def take_five(history):
        for _, _ in zip(range(5), history):
            pass

    for question in (lambda: store.history_with('alice', 'bob', FOREVER),
                     lambda: store.history_of_group('alice', GROUP, FOREVER)):
        assert steps(store, lambda: take_five(question())) < steps(store, lambda: list(question())) / 50


# Groups ..............................................................................................

def test_members_are_those_in_the_group_once_an_entry_has_happened(store):
    say(store, 'alice', 'bob')
    create(store, 'carol', 'bob', 'alice')  # 2
    leave(store, 'bob')  # 3
    join(store, 'dave')  # 4
    join(store, 'bob')  # 5
    store.commit()
    assert store.members(GROUP, 2) == ['alice', 'bob', 'carol']
    assert store.members(GROUP, 3) == ['alice', 'carol']
    assert store.members(GROUP, 4) == ['alice', 'carol', 'dave']
    assert store.members(GROUP, 5) == store.members(GROUP, 99) == ['alice', 'bob', 'carol', 'dave']
    assert store.members('00000000', 5) == []


def test_what_a_tick_has_changed_so_far_counts_before_its_commit(store):
    create(store, 'alice', 'bob', name='tea')
    assert store.group_exists(GROUP) and store.group_name(GROUP) == 'tea'
    assert store.is_member('alice', GROUP) and store.is_member('bob', GROUP)
    assert store.count_members(GROUP) == 2
    entry = join(store, 'carol')
    assert store.is_member('carol', GROUP)
    assert store.count_members(GROUP) == 3
    assert store.members(GROUP, entry.message_id) == ['alice', 'bob', 'carol']
    assert store.groups_of('carol') == [(GROUP, 'tea', 3)]
    leave(store, 'carol')
    assert not store.is_member('carol', GROUP) and store.was_member('carol', GROUP)
    assert store.count_members(GROUP) == 2


def test_a_group_has_a_name_or_none(path):
    with closing(Store(path)) as store:
        create(store, 'alice', group='00000001', name='茶 tea')
        create(store, 'alice', group='00000002')
    with closing(Store(path)) as store:
        assert store.group_name('00000001') == '茶 tea'
        assert store.group_name('00000002') is None
        assert store.group_exists('00000002')
        assert not store.group_exists('00000003') and store.group_name('00000003') is None


def test_who_was_never_a_member_is_not_one(store):
    create(store, 'alice', 'bob')
    leave(store, 'bob')
    leave(store, 'carol')  # was never in it
    store.commit()
    questions = (store.is_member, store.was_member)
    assert [ask('alice', GROUP) for ask in questions] == [True, True]
    assert [ask('bob', GROUP) for ask in questions] == [False, True]
    assert [ask('carol', GROUP) for ask in questions] == [False, False]
    assert [ask('alice', '00000000') for ask in questions] == [False, False]
    assert store.count_members(GROUP) == 1
    assert store.count_members('00000000') == 0


def test_groups_of_lists_those_one_is_in_with_the_number_of_members(store):
    create(store, 'alice', 'bob', 'carol', group='00000002', name='tea')
    create(store, 'bob', 'alice', group='00000001')
    create(store, 'alice', 'bob', group='00000003')
    leave(store, 'alice', '00000003')
    leave(store, 'carol', '00000002')
    say(store, 'bob', 'alice')  # a stream, but no group
    store.commit()
    assert store.groups_of('alice') == [('00000001', None, 2), ('00000002', 'tea', 2)]
    assert store.groups_of('carol') == store.groups_of('nobody') == []


def test_a_new_group_id_is_one_that_no_group_has(store, monkeypatch):
    assert all(len(bytes.fromhex(store.new_group_id())) == 4 for _ in range(20))
    create(store, 'alice', group='00000001')
    drawn = iter(['00000001', '00000001', '00000002'])
    monkeypatch.setattr('secrets.token_hex', lambda size: next(drawn))
    assert store.new_group_id() == '00000002'


# Names ...............................................................................................

@pytest.mark.parametrize('name', [
    'a', 'alice', 'Bob_2', 'x-y.z', '张三', 'Ольга', 'é', '\u0663', 'a' * 32, 'servers'], ids=ascii_start)
def test_a_name_is_letters_and_digits_of_any_script(name):
    assert is_valid_name(name)


@pytest.mark.parametrize('name', [
    '', 'a' * 33, 'a b', 'a\u3000b', 'a\n', 'a\0', 'a/b', 'a@b', '🀄', '\u200d', '\u202e', '½', 'Ⅷ',
    'e\u0301', 'server', 'Server', 'SERVER', 'ｓｅｒｖｅｒ', '\ud800'], ids=ascii_start)
def test_what_is_no_name(name):
    assert not is_valid_name(name)


def test_a_name_is_looked_up_as_its_composed_form():
    assert normalize('e\u0301') == normalize('é') == 'é'
    assert normalize('Alice') == 'Alice'
    assert normalize('ｂｏｂ') == 'ｂｏｂ'  # wide letters are letters of their own...


def test_what_cannot_become_a_name_is_left_alone():
    """Marks in the wrong order take the square of their number: to order these 64 kB takes 3 s."""
    marks = 'a' + '\u0301' * 16_000 + '\u0316' * 16_000
    assert normalize(marks) == marks
    longest = '\u1f82' * 32  # one character of a name from four, and none is made of more
    assert normalize(unicodedata.normalize('NFD', longest)) == longest and is_valid_name(longest)


@pytest.mark.parametrize('one, other', [
    ('Bob', 'bob'), ('ｂｏｂ', 'bob'), ('STRASSE', 'straße'), ('ﬁn', 'fin'), ('Σ', 'ς'),
    ('\u212b', 'å'), ('\u212a', 'k')], ids=ascii_start)
def test_names_that_are_the_same_to_the_eye_have_the_same_key(one, other):
    assert name_key(one) == name_key(other)  # ...but not to the eye


def test_names_that_differ_to_the_eye_have_keys_that_differ():
    assert len({name_key(name) for name in ('bob', 'bop', 'b-ob', 'b.ob', 'böb', '张三', '张三1')}) == 7


# Passwords ...........................................................................................

@pytest.mark.parametrize('password', ['secret', '', '密码 🔑', 'p' * 1000, 'nul\0nul'])
def test_a_password_matches_itself_alone(password):
    known = hash_password(password, COST)
    assert password_matches(password, known)
    for other in (password + 'x', password.upper() + ' ', password[:-1] + '!'):
        assert not password_matches(other, known)


def test_two_hashes_of_a_password_differ():
    first, second = hash_password('secret', COST), hash_password('secret', COST)
    assert first.salt != second.salt and first.digest != second.digest
    assert len(first.salt) >= 16 and len(first.digest) == 32
    assert password_matches('secret', first) and password_matches('secret', second)


def test_the_hash_is_scrypt_as_others_compute_it():
    known = hash_password('secret', COST, b'salt')
    assert known == (COST, b'salt', hashlib.scrypt(b'secret', salt=b'salt', n=1024, r=8, p=1, dklen=32))


def test_a_password_is_judged_with_the_cost_it_was_made_with(store):
    cheap, dear = hash_password('secret', COST), hash_password('secret', 15)  # over scrypt's default limit
    store.add_user('alice', 'alice', cheap)
    store.add_user('bob', 'bob', dear)
    store.commit()
    assert [store.password_of(user).cost for user in ('alice', 'bob')] == [COST, 15]
    assert password_matches('secret', store.password_of('alice'))
    assert password_matches('secret', store.password_of('bob'))
    assert not password_matches('secret', dear._replace(cost=COST))


# Users and tokens ....................................................................................

def test_a_user_is_there_from_the_registration_on(path):
    with closing(Store(path)) as store:
        assert not store.user_exists('Alice') and store.password_of('Alice') is None
        add_users(store, 'Alice')
        assert store.user_exists('Alice')
    with closing(Store(path)) as store:
        assert store.user_exists('Alice') and not store.user_exists('alice')
        assert store.password_of('Alice') == PASSWORD


def test_a_name_is_taken_by_whoever_has_its_key(store):
    store.add_user('Alice', 'alice', PASSWORD)
    assert store.name_is_taken('alice')
    assert not store.name_is_taken('Alice') and not store.name_is_taken('bob')


def test_two_users_cannot_have_the_same_key(store):
    store.add_user('Alice', 'alice', PASSWORD)
    store.commit()
    answers = []
    store.add_user('ALICE', 'alice', PASSWORD)
    store.after_commit(answers.append)
    store.commit()
    assert answers == [False]
    assert not store.user_exists('ALICE')


def test_known_users_of_ten_thousand_names(store):
    names = [f'user{number:05}' for number in range(0, 10_000, 7)] + ['张三', "o'hara", 'quote"d']
    add_users(store, *names)
    store.commit()
    asked = [f'user{number:05}' for number in range(10_000)] + names[-3:] + ['', ' ', '%', names[0]]
    assert store.known_users(reversed(asked)) == sorted(names)
    assert store.known_users([]) == store.known_users(['nobody']) == []


def test_list_users_is_by_name_and_ends_at_the_limit(store):
    add_users(store, 'carol', 'alice', 'bob')
    store.commit()
    assert store.list_users(10) == ['alice', 'bob', 'carol']
    assert store.list_users(2) == ['alice', 'bob']
    assert store.list_users(0) == []


def test_a_token_matches_for_its_user_alone(path):
    with closing(Store(path)) as store:
        add_users(store, 'alice', 'bob', 'carol')
        token, other = store.new_token('alice', 0), store.new_token('bob', 0)
    with closing(Store(path)) as store:
        assert store.token_matches('alice', token, 1)
        assert token != other and len(token) >= 32
        for user, wrong in (('bob', token), ('alice', other), ('alice', ''), ('alice', token + 'x'),
                            ('alice', token[:-1]), ('carol', token), ('carol', ''), ('nobody', token)):
            assert store.token_matches(user, wrong, 1) is False


def test_a_token_ends_with_its_lifetime(store):
    add_users(store, 'alice')
    token = store.new_token('alice', 1000.5)
    store.commit()
    assert store.token_matches('alice', token, 1000.5 + TOKEN_LIFETIME - 1)
    assert not store.token_matches('alice', token, 1000.5 + TOKEN_LIFETIME)
    assert not store.token_matches('alice', token, 1000.5 + TOKEN_LIFETIME + 1)


def test_a_new_token_ends_the_old_one(store):
    add_users(store, 'alice')
    old = store.new_token('alice', 0)
    new = store.new_token('alice', 0)
    store.commit()
    assert not store.token_matches('alice', old, 1)
    assert store.token_matches('alice', new, 1)


def test_a_token_can_be_ended_and_made_anew(store):
    add_users(store, 'alice', 'bob')
    ended, other = store.new_token('alice', 0), store.new_token('bob', 0)
    store.end_token('alice')
    store.commit()
    assert not store.token_matches('alice', ended, 1)
    assert store.token_matches('bob', other, 1)
    assert store.token_matches('alice', store.new_token('alice', 0), 1)


def test_a_new_password_replaces_the_old_one_and_ends_the_token(path):
    with closing(Store(path)) as store:
        add_users(store, 'alice', 'bob')
        token, other = store.new_token('alice', 0), store.new_token('bob', 0)
        new = hash_password('new', COST + 1)
        assert store.set_password('alice', new) == ''
    with closing(Store(path)) as store:
        assert store.password_of('alice') == new
        assert store.password_of('bob') == PASSWORD
        assert not store.token_matches('alice', token, 1)
        assert store.token_matches('bob', other, 1)


def test_a_token_whose_tick_failed_is_none(store):
    add_users(store, 'alice')
    old = store.new_token('alice', 0)
    store.commit()
    fill_disk(store)
    new = store.new_token('alice', 0)
    say(store, 'alice', 'bob', LONG)
    store.commit()
    assert store.token_matches('alice', old, 1)
    assert not store.token_matches('alice', new, 1)


def test_the_file_has_neither_password_nor_token(path, tmp_path):
    with closing(Store(path)) as store:
        store.add_user('alice', 'alice', hash_password('open sesame', COST))
        token = store.new_token('alice', 0)
        say(store, 'alice', 'bob', 'this text is in the file')
    everything = b''.join(content(tmp_path).values())
    assert b'this text is in the file' in everything
    assert b'open sesame' not in everything
    assert token.encode() not in everything
    assert hashlib.sha256(token.encode()).digest() in everything


# What was delivered ..................................................................................

def test_what_was_delivered_is_written_when_it_is_saved(path):
    with closing(Store(path)) as store:
        add_users(store, 'alice', 'bob')
        assert store.delivered_id('alice') == 0
        store.set_delivered('alice', 5)
        assert store.delivered_id('alice') == 5 and store.delivered_id('bob') == 0
        store.commit()
        assert value(store, "SELECT delivered_id FROM users WHERE user_id = 'alice'") == 0
        store.save_delivered()
        store.commit()
        assert store.delivered_id('alice') == 5
        assert value(store, "SELECT delivered_id FROM users WHERE user_id = 'alice'") == 5
    with closing(Store(path)) as store:
        assert store.delivered_id('alice') == 5 and store.delivered_id('bob') == 0


def test_what_was_saved_is_not_written_again(store):
    add_users(store, 'alice')
    store.set_delivered('alice', 5)
    store.save_delivered()
    store.commit()
    assert recorded(store, lambda: (store.save_delivered(), store.commit())) == []


def test_what_was_saved_and_then_changed_before_the_commit_is_not_forgotten(path):
    with closing(Store(path)) as store:
        add_users(store, 'alice', 'bob')
        store.set_delivered('alice', 5)
        store.set_delivered('bob', 4)
        store.save_delivered()
        store.set_delivered('alice', 7)
        store.commit()
        assert store.delivered_id('alice') == 7 and store.delivered_id('bob') == 4
        store.save_delivered()
        store.commit()
        assert store.delivered_id('alice') == 7
    with closing(Store(path)) as store:
        assert store.delivered_id('alice') == 7 and store.delivered_id('bob') == 4


def test_what_could_not_be_saved_is_kept_to_be_saved_again(path):
    with closing(Store(path)) as store:
        add_users(store, 'alice')
        store.commit()
        fill_disk(store)
        store.set_delivered('alice', 5)
        store.save_delivered()
        say(store, 'alice', 'bob', LONG)
        assert store.commit() == []
        assert store.delivered_id('alice') == 5
        make_room(store)
        store.save_delivered()
        store.commit()
    with closing(Store(path)) as store:
        assert store.delivered_id('alice') == 5


def test_to_save_twice_in_one_tick_does_no_harm(store, caplog):
    add_users(store, 'alice', 'bob')
    store.set_delivered('alice', 5)
    store.save_delivered()
    store.set_delivered('bob', 4)
    store.save_delivered()
    store.commit()
    assert caplog.messages == []
    assert (store.delivered_id('alice'), store.delivered_id('bob')) == (5, 4)
    assert recorded(store, lambda: (store.save_delivered(), store.commit())) == []


@pytest.mark.parametrize('change', [
    "log SET stream = CAST(x'616c69636520626fff' AS TEXT)", 'log SET stream = CAST(stream AS BLOB)',
    "groups SET group_name = CAST(x'74ff' AS TEXT)", 'groups SET group_name = CAST(group_name AS BLOB)',
    "users SET digest = 'x'", "users SET token_digest = 'x'", "users SET token_ends_at = 'x'",
    "readers SET before_id = 'x'"], ids=ascii_start)
def test_a_row_that_no_server_writes_is_refused(path, change):
    with closing(Store(path, 'off')) as store:
        add_users(store, 'alice', 'bob')
        say(store, 'alice', 'bob'), create(store, 'alice', 'bob', name='team'), leave(store, 'bob')
    make_database(path, 'INSERT INTO log_of_stream SELECT stream, message_id, json_array(message_id) FROM log')
    Store(path, 'off').close()  # and nothing is left to index, which would find some of these
    make_database(path, f'UPDATE {change}')
    refusal(path)


def test_a_file_without_a_name_is_none():
    with pytest.raises(StoreError, match='it needs a name, or nothing is kept'):
        Store('')  # SQLite would take it, and delete it in the end


# The file: one holder ................................................................................

def test_a_second_store_in_the_same_process_is_refused_at_once_and_the_first_goes_on(path):
    with closing(Store(path)) as store:
        say(store, 'alice', 'bob')
        store.commit()
        started = time.monotonic()
        with pytest.raises(StoreError, match='another program is using it'):
            Store(path)
        assert time.monotonic() - started < 1
        say(store, 'alice', 'bob')
        assert ids(store.commit()) == [2]
    with closing(Store(path)) as store:
        assert unread(store, 'bob') == [1, 2]


def test_a_second_store_in_another_process_is_refused_at_once_and_the_first_goes_on(path):
    with closing(Store(path)) as store:
        say(store, 'alice', 'bob')
        answer, _ = run(path, '''
started = time.monotonic()
try:
    Store(path)
except StoreError as error:
    print(time.monotonic() - started < 1, error)''')
        assert answer == f'True cannot use the database {path}: another program is using it\n'
        say(store, 'alice', 'bob')
        assert ids(store.commit()) == [1, 2]


def test_a_fresh_store_that_wrote_nothing_yet_holds_its_file_too(path):
    with closing(Store(path)):
        assert 'another program' in run(path, '''
try:
    Store(path)
except StoreError as error:
    print(error)''')[0]


def test_the_file_is_free_again_once_its_holder_was_killed(path):
    with start(path, '''
store = Store(path)
say('alice', 'bob', 'kept')
store.commit()
say('alice', 'bob', 'lost')
print('ready', flush=True)
sys.stdin.read()''') as child:
        assert child.stdout.readline() == 'ready\n'
        with pytest.raises(StoreError, match='another program is using it'):
            Store(path)
        child.kill()
    with closing(Store(path)) as store:
        assert [entry.text for entry in store.unread('bob', 0, 10)] == ['kept']


def test_in_memory_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(Store(':memory:')) as first, closing(Store(':memory:')) as second:
        say(first, 'alice', 'bob', seq=1)
        assert ids(first.commit()) == [1]
        assert unread(first, 'bob') == [1] and unread(second, 'bob') == []
        assert first.log_id != second.log_id
    assert list(tmp_path.iterdir()) == []


def test_a_closed_store_leaves_one_file(path, tmp_path):
    with closing(Store(path)) as store:
        say(store, 'alice', 'bob')
    assert [file.name for file in tmp_path.iterdir()] == ['im.db']


def test_the_log_has_an_id_of_its_own(tmp_path):
    drawn = set()
    for name in ('a.db', 'b.db', 'c.db'):
        path = str(tmp_path / name)
        with closing(Store(path)) as store:
            drawn.add(log_id := store.log_id)
            say(store, 'alice', 'bob')
        for _ in range(2):
            with closing(Store(path)) as store:
                assert store.log_id == log_id
    assert len(drawn) == 3
    assert all(len(log_id) >= 16 for log_id in drawn)


# The file: what is taken, what is refused ............................................................

def test_an_empty_file_is_made_new_and_says_so(path, caplog):
    Path(path).touch()
    with closing(Store(path)) as store:
        assert 'is an empty file: a new database begins in it' in caplog.text
        say(store, 'alice', 'bob')
        assert ids(store.commit()) == [1]
        assert value(store, 'PRAGMA application_id') == APPLICATION_ID
        assert value(store, 'PRAGMA user_version') == SCHEMA_VERSION


def test_a_new_file_says_nothing(path, caplog):
    Store(path).close()
    assert not caplog.text


@pytest.mark.parametrize('is_there', [True, False], ids=['emptied', 'gone'])
def test_a_file_that_is_gone_but_for_its_wal_is_refused_and_nothing_is_touched(path, is_there):
    if is_there:
        Path(path).touch()
    Path(path + '-wal').write_bytes(b'the newest messages')
    with pytest.raises(StoreError, match='it is gone or empty, and the newest messages'):
        Store(path)
    assert Path(path + '-wal').read_bytes() == b'the newest messages'
    assert Path(path).exists() == is_there and (not is_there or Path(path).read_bytes() == b'')


@pytest.mark.parametrize('data', [
    b'not a database at all\n', bytes(5000), random.Random(1).randbytes(10_000), b'SQLite format 3\0',
    b'SQLite format 3\0' + random.Random(2).randbytes(5000)],
    ids=['text', 'zeros', 'noise', 'magic', 'lookalike'])
def test_what_is_no_database_is_refused(path, data):
    Path(path).write_bytes(data)
    refusal(path)


@pytest.mark.parametrize('statements', [
    ['CREATE TABLE notes (text)'],
    ['CREATE TABLE notes (text)', 'PRAGMA application_id = 77'],
    ['CREATE TABLE notes (text)', 'PRAGMA user_version = 1', 'PRAGMA journal_mode = WAL'],
    ['CREATE TABLE about (log_id)', 'CREATE TABLE log (message_id)']],
    ids=['plain', 'marked', 'wal', 'alike'])
def test_the_database_of_another_program_is_refused(path, statements):
    make_database(path, *statements)
    assert 'it belongs to another program' in refusal(path)


def test_the_database_of_another_program_is_refused_although_it_has_no_tables_yet(path):
    make_database(path, 'PRAGMA application_id = 77')
    assert 'it belongs to another program' in refusal(path)


def test_a_database_with_our_mark_but_not_our_tables_is_refused(path):
    make_database(path, f'PRAGMA application_id = {APPLICATION_ID}', 'PRAGMA user_version = 1',
                  'CREATE TABLE notes (text)')
    refusal(path)


def test_the_database_of_a_newer_version_is_refused(path):
    filled_file(path)
    make_database(path, f'PRAGMA user_version = {SCHEMA_VERSION + 1}')
    assert f'newer version of this server (schema {SCHEMA_VERSION + 1})' in refusal(path)
    make_database(path, f'PRAGMA user_version = {SCHEMA_VERSION}')
    with closing(Store(path)) as store:
        assert store.committed_id == 300


def test_a_newer_version_that_was_killed_loses_nothing_when_it_is_refused(path):
    run(path, f'''
store = Store(path)
say('alice', 'bob', 'kept')
store.commit()
store._db.execute('PRAGMA user_version = {SCHEMA_VERSION + 1}')
die()''')
    with pytest.raises(StoreError, match='newer version'):
        Store(path)
    make_database(path, f'PRAGMA user_version = {SCHEMA_VERSION}')
    with closing(Store(path)) as store:
        assert [entry.text for entry in store.unread('bob', 0, 10)] == ['kept']


def test_a_truncated_file_is_refused(path):
    data, _ = filled_file(path)
    for size in (10, 99, 100, 512, 4095, 4096, 4097, len(data) // 2, len(data) - 4097, len(data) - 4096):
        Path(path).write_bytes(data[:size])
        refusal(path)


def test_a_file_that_ends_in_the_middle_of_its_last_page_is_refused(path):
    data, _ = filled_file(path)
    for missing in (1, 100, 2000):
        Path(path).write_bytes(data[:-missing])
        refusal(path)


def test_a_page_that_was_wiped_is_refused(path):
    data, _ = filled_file(path)
    for end in (len(data), len(data) - 4096):
        Path(path).write_bytes(data[:end - 4096] + bytes(4096) + data[end:])
        assert 'corrupt' in refusal(path)


def test_a_flipped_byte_is_noticed_or_does_no_harm_to_the_number_of_rows(path):
    data, before = filled_file(path)
    outcomes = set()
    for position in range(4096, len(data), 397):  # what begins before, the schema, has tests of its own
        Path(path).write_bytes(flipped(data, position))
        try:
            store = Store(path, 'off')
        except StoreError:
            assert content(Path(path).parent) == {'im.db': flipped(data, position)}
            refusal(path)
            outcomes.add('refused')
        else:
            with closing(store):
                assert rows(store) == before and store.committed_id == 300
            outcomes.add('opened')
    assert outcomes == {'refused', 'opened'}


@pytest.mark.parametrize('place, mask', [
    (b'UNIQUE INDEX', 0xFF),  # no UTF-8: sqlite3 cannot even make a text of SQLite's message
    (b'after_id INTEGER', 0x01),  # SQLite cites the statement, which has several lines
    (b'PRIMARY KEY, kind', 0x01)],  # then message_id is a column of its own, and empty
    ids=['no text', 'many lines', 'no ids'])
def test_a_flipped_byte_in_the_schema_is_refused(path, place, mask):
    data, _ = filled_file(path)
    Path(path).write_bytes(flipped(data, data.index(place), mask))
    refusal(path)


def test_an_index_that_disagrees_with_its_table_is_refused(path):
    data, _ = filled_file(path)
    damaged = 0
    for position in range(4096, len(data), 397):
        Path(path).write_bytes(flipped(data, position, 0x01))
        with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError):
            if connection.execute('PRAGMA integrity_check').fetchone()[0].startswith('row '):
                connection.close()
                refusal(path)
                damaged += 1
    assert damaged


def test_a_folder_is_refused(tmp_path):
    assert 'unable to open' in refusal(str(tmp_path))


def test_a_path_through_a_missing_folder_is_refused(tmp_path):
    assert 'unable to open' in refusal(str(tmp_path / 'missing' / 'im.db'))
    assert not (tmp_path / 'missing').exists()


@pytest.mark.skipif(not hasattr(os, 'seteuid'), reason='no permissions as POSIX has them')
@pytest.mark.parametrize('file_mode, folder_mode', [(0o444, 0o755), (0o444, 0o777), (0o644, 0o555)])
def test_a_file_that_cannot_be_written_is_refused(file_mode, folder_mode):
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: root's is closed to everyone else
        path = os.path.join(folder, 'im.db')
        filled_file(path)
        os.chmod(path, file_mode)
        os.chmod(folder, folder_mode)
        user = os.geteuid()
        os.seteuid(user or 65534)  # permissions don't bind root
        try:
            refusal(path)
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o755)


def test_what_was_refused_can_be_tried_again(path):
    with closing(Store(path)):
        for _ in range(3):
            with pytest.raises(StoreError):
                Store(path)
    Store(path).close()


# What a question costs ...............................................................................

def plans(store, question):
    """How SQLite answers each of the statements of this question, line by line."""
    asked = [(sql, parameters) for sql, parameters in recorded(store, question)
             if sql.split()[0] in ('SELECT', 'UPDATE')]
    assert asked
    return [row[3] for sql, parameters in asked
            for row in store._db.execute('EXPLAIN QUERY PLAN ' + sql, parameters)]


QUESTIONS = {
    'unread': lambda store: store.unread('alice', 0, 10),
    'history_with': lambda store: store.history_with('alice', 'bob', FOREVER),
    'history_of_group': lambda store: store.history_of_group('alice', GROUP, FOREVER),
    'find_entry': lambda store: store.find_entry('alice', 1),
    'last_client_seq': lambda store: store.last_client_seq('alice'),
    'members': lambda store: store.members(GROUP, 1),
    'is_member': lambda store: store.is_member('alice', GROUP),
    'was_member': lambda store: store.was_member('alice', GROUP),
    'count_members': lambda store: store.count_members(GROUP),
    'groups_of': lambda store: store.groups_of('alice'),
    'group_exists': lambda store: store.group_exists(GROUP),
    'group_name': lambda store: store.group_name(GROUP),
    'user_exists': lambda store: store.user_exists('alice'),
    'known_users': lambda store: store.known_users(['alice', 'bob']),
    'name_is_taken': lambda store: store.name_is_taken('alice'),
    'password_of': lambda store: store.password_of('alice'),
    'token_matches': lambda store: store.token_matches('alice', 'token', 0),
    'delivered_id': lambda store: store.delivered_id('alice'),
    'new_token': lambda store: store.new_token('alice', 0),
    'set_password': lambda store: store.set_password('alice', PASSWORD),
    'quit_group': lambda store: leave(store, 'alice'),
    'save_delivered': lambda store: (store.set_delivered('alice', 1), store.save_delivered()),
}


@pytest.mark.parametrize('name', QUESTIONS)
def test_what_is_asked_again_and_again_is_found_by_an_index(path, name):
    with closing(Store(path, 'off')) as store:
        add_users(store, 'alice', 'bob')
        create(store, 'alice', 'bob', name='tea')
        say(store, 'alice', 'bob', seq=1)
        say(store, 'bob', 'alice', seq=1)
    with closing(Store(path, 'off')) as store:  # its caches are empty
        found = plans(store, lambda: QUESTIONS[name](store))
    assert any(line.startswith('SEARCH') for line in found)
    assert not [line for line in found if line.startswith('SCAN') and 'json_each' not in line]
    if name in ('unread', 'history_with', 'history_of_group'):
        assert not [line for line in found if 'TEMP B-TREE' in line]  # no sorting before the first row


def chatter(store, number, sender='carol', recipient='dave'):
    for _ in range(number):
        say(store, sender, recipient)
    store.commit()


def test_to_quit_costs_the_same_after_any_number_of_times_in_the_group(tmp_path):
    costs = []
    for times in (10, 1_000):
        with closing(Store(str(tmp_path / f'{times}.db'), 'off')) as store:
            create(store, 'bob', 'alice')
            for _ in range(times):
                leave(store, 'alice'), join(store, 'alice')
            store.commit()
            costs.append(steps(store, lambda: (leave(store, 'alice'), store.commit())))
    assert costs[1] < 2 * costs[0]


def test_to_find_ten_unread_costs_the_same_in_a_log_of_any_length(tmp_path):
    costs = []
    for length in (200, 20_000):
        with closing(Store(str(tmp_path / f'{length}.db'), 'off')) as store:
            create(store, 'alice', 'bob')
            chatter(store, length // 2)
            for _ in range(5):
                say(store, 'carol', 'bob')
                tell(store, 'alice')
            chatter(store, length // 2)
            assert len(store.unread('bob', 1, 100)) == 10
            costs.append(steps(store, lambda: store.unread('bob', 1, 100)))
    assert costs[1] < 2 * costs[0]


def test_to_find_ten_unread_costs_the_same_behind_any_number_of_read_ones(tmp_path):
    costs = []
    for length in (200, 20_000):
        with closing(Store(str(tmp_path / f'{length}.db'), 'off')) as store:
            chatter(store, length, 'alice', 'bob')
            chatter(store, 10, 'alice', 'bob')
            costs.append(steps(store, lambda: unread(store, 'bob', length)))
            assert unread(store, 'bob', length) == list(range(length + 1, length + 11))
    assert costs[1] < 2 * costs[0]


def test_streams_with_nothing_new_are_not_asked_one_by_one(store):
    for number in range(50):
        say(store, f'user{number}', 'bob')
    say(store, 'user7', 'bob')
    store.commit()
    assert len(recorded(store, lambda: store.unread('bob', 50, 10))) == 2  # which streams, and that of user7
    assert len(recorded(store, lambda: store.unread('bob', 51, 10))) == 1


def test_a_page_costs_the_same_before_any_number_of_others(tmp_path):
    costs = []
    for length in (200, 20_000):
        with closing(Store(str(tmp_path / f'{length}.db'), 'off')) as store:
            chatter(store, length, 'alice', 'bob')
            costs.append(steps(store, lambda: store.unread('bob', 0, 10)))
    assert costs[1] < 2 * costs[0]


# Caches ..............................................................................................

@pytest.mark.parametrize('number, kept', [(3, 3), (4, 0)])
def test_a_cache_starts_anew_once_it_is_over_its_size(store, monkeypatch, number, kept):
    monkeypatch.setattr(store_module, 'CACHE_SIZE', 3)
    for name in range(number):
        add_users(store, f'user{name}')
        say(store, f'user{name}', 'alice', seq=1)
        assert store.user_exists(f'user{name}')
    store.commit()
    assert [len(cache) for cache in (store._last_seqs, store._streams, store._users)] == [kept] * 3


def test_answers_stay_right_whatever_the_caches_forget(store, monkeypatch):
    monkeypatch.setattr(store_module, 'CACHE_SIZE', 3)
    for turn in range(1, 4):
        for name in range(5):
            if turn == 1:
                add_users(store, f'user{name}')
            say(store, f'user{name}', 'alice', seq=turn)
            assert store.last_client_seq(f'user{name}') == turn
            if name % 2:
                store.commit()
        store.commit()
        assert [store.last_client_seq(f'user{name}') for name in range(6)] == [turn] * 5 + [0]
        assert [store.user_exists(f'user{name}') for name in range(6)] == [True] * 5 + [False]
        assert len(store.unread('alice', 0, 100)) == 5 * turn
    store.commit()
    assert max(len(cache) for cache in (store._last_seqs, store._streams, store._users)) <= 3


def test_a_stranger_asked_for_is_not_remembered_as_a_user(store):
    assert not store.user_exists('bob')
    add_users(store, 'bob')
    assert store.user_exists('bob')
    store.commit()
    assert store.user_exists('bob')


def test_what_is_known_is_not_asked_again(store):
    add_users(store, 'alice')
    say(store, 'alice', 'bob', seq=1)
    store.commit()
    assert store.user_exists('alice') and store.last_client_seq('alice') == 1
    assert recorded(store, lambda: (store.user_exists('alice'), store.last_client_seq('alice'))) == []


def test_one_session_that_ends_writes_its_own_user_only(path):
    """A thousand that end in one tick must not write a thousand users each."""
    with closing(Store(path, 'off')) as store:
        add_users(store, 'alice', 'bob')
        store.set_delivered('alice', 5)
        store.set_delivered('bob', 6)
        store.save_delivered('alice')
        store.commit()
        assert store._delivered == {'bob': 6}
    with closing(Store(path, 'off')) as store:
        assert store.delivered_id('alice') == 5 and store.delivered_id('bob') == 6


def test_who_joined_and_quit_a_thousand_times_slows_no_question_about_now(store):
    add_users(store, 'alice', 'bob')
    group = create(store, 'alice').stream

    def steps():
        count = []
        store._db.set_progress_handler(lambda: count.append(1), 1)
        assert store.is_member('alice', group) and store.count_members(group) == 1
        assert not store.is_member('bob', group)
        store._db.set_progress_handler(None, 1)
        return len(count)
    before = steps()
    for _ in range(1000):
        for change, kind in (store.join_group, Kind.JOIN_GROUP), (store.quit_group, Kind.QUIT_GROUP):
            change(Entry(kind, group, 'bob', '', None, 1), lambda is_durable: None)
        store.commit()
    assert steps() <= 2 * before


# The index of streams, which is written behind ........................................................

@pytest.fixture
def small(monkeypatch):
    """All that is done by the lump is done by very small ones."""
    for name, size in ('RECENT', 3), ('RUN', 2), ('ROWS_A_STATEMENT', 2), ('HISTORY_STEP', 2):
        monkeypatch.setattr(store_module, name, size)


def indexed(store):
    """What the index has on disk: stream -> ids."""
    found = {}
    for stream, last_id, text in store._db.execute('SELECT * FROM log_of_stream ORDER BY stream, last_id'):
        run = store_module.json.loads(text)
        assert run == sorted(run) and run[-1] == last_id and len(run) <= store_module.RUN
        found.setdefault(stream, []).extend(run)
    return found


@pytest.mark.parametrize('seed', range(4))
def test_a_random_walk_agrees_with_the_model_whatever_the_index_has_yet(path, small, seed):
    test_a_random_walk_agrees_with_a_model_of_the_rules(path, seed)


@pytest.mark.parametrize('count', (0, 1, 2, 3, 4, 5, 6, 7, 50))
def test_everything_is_found_however_far_behind_the_index_is(path, small, count):
    with closing(Store(path, 'off')) as store:
        for number in range(count):
            say(store, 'alice' if number % 3 else 'carol', 'bob')
            store.commit()
            expected = list(range(1, number + 2))
            assert unread(store, 'bob') == expected and unread(store, 'bob', number) == [number + 1]
            assert [e for limit in (1, 2, 5) for e in unread(store, 'bob', 0, limit)] == [
                e for limit in (1, 2, 5) for e in expected[:limit]]
            both = [*store.history_with('bob', 'alice', FOREVER), *store.history_with('bob', 'carol', FOREVER)]
            assert sorted(ids(both)) == expected
            for before in range(number + 2):
                assert ids(store.history_with('bob', 'alice', before)) == [
                    i for i in reversed(expected) if (i - 1) % 3 and i < before]


@pytest.mark.parametrize('pending', (RECENT - 1, RECENT))
def test_the_index_is_written_once_so_many_entries_wait_for_it(store, pending):
    for number in range(pending):
        say(store, f'user{number % 3}', 'bob')
    store.commit()
    assert indexed(store) == {}  # not with the tick that makes it too many, but with the next
    say(store, 'user0', 'bob')
    store.commit()
    assert sum(map(len, indexed(store).values())) == (pending if pending == RECENT else 0)
    assert sum(map(len, store._recent.values())) == store._recent_count == (1 if pending == RECENT else pending + 1)
    assert unread(store, 'bob') == list(range(1, pending + 2))


def test_a_hot_stream_is_written_in_runs(store):
    for _ in range(RECENT):
        say(store, 'alice', 'bob')
    store.commit()
    say(store, 'alice', 'bob')
    store.commit()
    assert value(store, 'SELECT count(*) FROM log_of_stream') == RECENT // RUN
    assert indexed(store) == {'alice bob': list(range(1, RECENT + 1))}


@pytest.mark.parametrize('count', (1, ROWS_A_STATEMENT - 1, ROWS_A_STATEMENT, ROWS_A_STATEMENT + 1, 200))
def test_all_entries_of_a_tick_are_written_however_many(store, count):
    said = [say(store, 'alice', 'bob', f'text {number}', number + 1) for number in range(count)]
    store.commit()
    assert store.unread('bob', 0, FOREVER) == said and value(store, 'SELECT count(*) FROM log') == count


def test_what_the_index_lacked_when_the_process_died_is_found_again(path, small):
    output, _ = run(path, '''
import store as store_module
store_module.RECENT, store_module.RUN = 5, 2
store = Store(path, 'off')
for number in range(12):
    say('alice', 'bob', 'hi')
    store.commit()
print(sum(map(len, store._recent.values())))
os.kill(os.getpid(), signal.SIGKILL)
''')
    assert 0 < int(output) < 12  # some were written, some not
    with closing(Store(path, 'off')) as store:
        assert unread(store, 'bob') == list(range(1, 13))
        assert ids(store.history_with('bob', 'alice', FOREVER)) == list(range(12, 0, -1))
        assert sum(map(len, indexed(store).values())) + store._recent_count == 12


def test_an_index_that_could_not_be_written_is_written_later(store, small, caplog):
    for number in range(4):
        say(store, 'alice', 'bob')
    store.commit()
    poison(store)
    say(store, 'alice', 'bob', 'poison')
    assert store.commit() == [] and indexed(store) == {} and store._recent_count == 4
    assert unread(store, 'bob') == [1, 2, 3, 4]
    say(store, 'alice', 'bob', 'fine')
    store.commit()
    assert indexed(store) == {'alice bob': [1, 2, 3, 4]} and store._recent == {'alice bob': [5]}
    assert unread(store, 'bob') == [1, 2, 3, 4, 5]


def test_a_damaged_index_shows_nobody_what_others_were_told(store, small):
    for number in range(4):
        say(store, 'alice', 'bob')
        say(store, 'alice', 'carol', 'for carol alone')
        store.commit()
    store._db.execute("UPDATE log_of_stream SET ids = '[1,2]', last_id = 2 WHERE stream = 'alice bob' AND last_id = 3")
    assert {entry.text for entry in store.unread('bob', 0, 100)} == {'hi'}
    assert {entry.text for entry in store.history_with('bob', 'alice', FOREVER)} == {'hi'}


# The log of version 1 of the schema had two indexes of SQLite's own.
VERSION_1 = '''
    DROP TABLE log_of_stream; DROP INDEX log_of_sender;
    CREATE INDEX log_of_stream ON log (stream);
    CREATE UNIQUE INDEX log_of_sender ON log (sender, client_seq) WHERE client_seq IS NOT NULL;
    PRAGMA user_version = 1'''


def test_a_file_of_the_first_version_is_taken_over(path):
    filled_file(path, RECENT + 300)  # more than is kept in memory
    make_database(path, *VERSION_1.split(';'))
    for _ in range(2):  # the second time it is one of this version
        with closing(Store(path, 'off')) as store:
            assert value(store, 'PRAGMA user_version') == SCHEMA_VERSION
            assert unread(store, 'bob') == list(range(1, RECENT + 301))
            assert store.last_client_seq('alice') == RECENT + 299
            assert store.find_entry('alice', 7).text == 'text 7'
    with closing(Store(path, 'off')) as store:
        say(store, 'alice', 'bob', seq=7)
        assert store.commit() == []  # that number is taken


def test_a_broken_file_of_the_first_version_is_refused_and_left_as_it_was(path):
    filled_file(path)
    make_database(path, *VERSION_1.split(';'), 'DROP TABLE groups')
    assert 'corrupt' in refusal(path)


def test_a_history_of_long_ago_costs_as_much_as_one_of_today(tmp_path):
    costs = []
    for length in (2_000, 40_000):
        with closing(Store(str(tmp_path / f'{length}.db'), 'off')) as store:
            chatter(store, length, 'alice', 'bob')
            say(store, 'alice', 'bob')
            store.commit()
            costs.append(steps(store, lambda: [next(store.history_with('bob', 'alice', 1_500)) for _ in range(10)]))
    assert costs[1] < 1.5 * costs[0]


@pytest.mark.parametrize('name, wrong', (('alice', ''), ('dora', ''), ('Alice', 'no valid'), ('a b', 'no valid')))
def test_set_password_makes_or_changes_an_account_and_commits(path, name, wrong):
    with closing(Store(path)) as store:
        add_users(store, 'alice')
        store.commit()
        said = store.set_password(name, hash_password('new', COST))
        assert wrong in said and bool(said) == bool(wrong)
    with closing(Store(path)) as store:
        assert store.user_exists(name) == (not wrong)
        assert wrong or password_matches('new', store.password_of(name))


def test_set_password_says_when_it_could_not_be_written(store):
    fill_disk(store)
    while not store.set_password(f'user{os.urandom(9).hex()}', PASSWORD):
        pass
    make_room(store)
    assert store.set_password('bob', PASSWORD) == ''
