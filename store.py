"""Users, groups and the log of messages, in one SQLite file.

What it does: remembers, and says only afterwards that it remembers.  What it leaves to others: who may do what
(imserver.py).  It knows no socket and no packet.

**The log is the queue.**  Each message, and each creation, join and quit of a group, is one row of `log` with an id
that grows, however many people read it.  A row belongs to a *stream*: all that one user writes to one other
("alice bob"), or all that is written to one group (its id).  `readers` says who reads which stream, after and before
which ids (those two not included):

      log     id  stream     sender  ...            readers  user   stream     after_id  before_id
              1   alice bob  alice   "hi"                    bob    alice bob  0         -
              2   9f8e7d6c   alice   creates it              alice  9f8e7d6c   2         -
              3   9f8e7d6c   bob     joins                   bob    9f8e7d6c   3         5
              4   9f8e7d6c   alice   "hello"
              5   9f8e7d6c   bob     quits

What a user has yet to get is then one question: the rows of the streams they read, between those ids, above the id up
to which everything was delivered.  There is no second copy for those offline, and none for those who read slowly.

**One transaction a tick.**  `append` only collects, `commit` writes all of it at once, and then, never before, calls
what came with each entry: told whether it is on disk, or the disk was full and nothing of the tick has happened.
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
import hmac
import itertools
import json
import logging
import operator
import os
import secrets
import sqlite3
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

SCHEMA_VERSION = 2
APPLICATION_ID = 0x12345678  # marks the file as ours, see PRAGMA application_id
FOREVER = 2**63 - 1  # greater than any message id
CACHE_SIZE = 100_000  # entries of a cache before it starts anew: some 10 MB
RECENT = 4_096  # entries by which the index of streams may be behind: written in 1 to 20 ms, found again in 2
RUN, RUNS_AT_ONCE = 128, 4  # ids of one row of that index; rows that are fetched where news are looked for
ROWS_A_STATEMENT = 64  # of the log: with 7 values each still under the 999 that an old SQLite takes
HISTORY_STEP = 32  # entries that are fetched at once where nobody knows yet how many are wanted
TOKEN_LIFETIME = 30 * 24 * 3600  # seconds
MAX_NAME = 32  # code points of a user's name
SERVER_NAME = 'server'  # reserved: who speaks where the server itself has something to say
WRONG_FOR_A_NAME, WRONG_IN_ALL = 5, 30  # wrong passwords from one address in WRONG_MEMORY; then none is looked at
WRONG_MEMORY, WRONG_KEPT = 60.0, 10_000  # seconds that they count; how many names and addresses of the wrong are kept
SCRYPT_BLOCK = 8  # r of RFC 7914: with it, N = 2**14 takes 16 MiB and some 50 ms

# Each index is paid for with every message: SQLite writes whole pages, and each stream has its place on another one.
# So the ids of a stream are gathered in memory and written by the run.  What was not yet is found again at the start.
INDEXES_OF_LOG = '''
    CREATE TABLE log_of_stream (
        stream TEXT, last_id INTEGER, ids TEXT NOT NULL, PRIMARY KEY (stream, last_id)) WITHOUT ROWID;
    CREATE UNIQUE INDEX log_of_sender ON log (sender, client_seq) WHERE client_seq > 0;'''
SCHEMA = f'''
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
    CREATE TABLE about (log_id TEXT NOT NULL);
    CREATE TABLE users (
        user_id TEXT PRIMARY KEY, name_key TEXT NOT NULL UNIQUE,
        cost INTEGER NOT NULL, salt BLOB NOT NULL, digest BLOB NOT NULL,
        token_digest BLOB, token_ends_at REAL, delivered_id INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE groups (group_id TEXT PRIMARY KEY, group_name TEXT);
    CREATE TABLE readers (
        user_id TEXT, stream TEXT, after_id INTEGER, before_id INTEGER,
        PRIMARY KEY (user_id, stream, after_id)) WITHOUT ROWID;
    CREATE INDEX readers_of_stream ON readers (stream);
    -- Who joins and quits a thousand times leaves a thousand spans: these questions are about the present ones.
    CREATE INDEX readers_now ON readers (stream, user_id) WHERE before_id IS NULL;
    CREATE TABLE log (
        message_id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, stream TEXT NOT NULL, sender TEXT NOT NULL,
        text TEXT NOT NULL, client_seq INTEGER, sent_at INTEGER NOT NULL);
    {INDEXES_OF_LOG}
'''
# From the first version, which had an index of SQLite's own on `stream`.
UPGRADE = f'DROP INDEX log_of_stream; DROP INDEX log_of_sender; {INDEXES_OF_LOG} PRAGMA user_version = {SCHEMA_VERSION}'
DAMAGED = '''SELECT 1 FROM log WHERE kind NOT BETWEEN 1 AND 5
        OR typeof(text) || typeof(sender) || typeof(stream) || typeof(sent_at) <> 'texttexttextinteger' UNION ALL
    SELECT 1 FROM log_of_stream WHERE NOT json_valid(ids) OR ids GLOB '*[^][0-9, ]*' UNION ALL
    SELECT 1 FROM readers WHERE typeof(coalesce(before_id, 0)) <> 'integer' UNION ALL SELECT 1 FROM users
        WHERE cost > 20 OR typeof(delivered_id) || typeof(cost) || typeof(salt) || typeof(digest) || typeof(coalesce(
        token_digest, salt)) || typeof(coalesce(token_ends_at, 0.0)) <> 'integerintegerblobblobblobreal' UNION ALL
    SELECT 1 FROM about LEFT JOIN groups WHERE typeof(log_id) || typeof(group_name) NOT IN ('texttext', 'textnull')'''
ENTRY_COLUMNS = 'kind, stream, sender, text, client_seq, sent_at, message_id'

logger = logging.getLogger('im.store')
Then = Callable[[bool], None]  # called after the commit: True, it is on disk; False, it never happened


class StoreError(Exception):
    """The file cannot be used; the text is one line that says why."""


Kind = IntEnum('Kind', 'MESSAGE GROUP_MESSAGE CREATE_GROUP JOIN_GROUP QUIT_GROUP')  # from 1, as rows have it
MESSAGE, GROUP_MESSAGE = Kind.MESSAGE, Kind.GROUP_MESSAGE  # CPython 3.11 takes 60 ns for the right side, 5 for these


@dataclass(slots=True)
class Entry:
    """One row of the log."""
    kind: Kind
    stream: str
    sender: str
    text: str  # of a creation: whatever tells one request from another
    client_seq: int | None  # 0 or None: from a session that does not number
    sent_at: int  # milliseconds since 1970, UTC
    message_id: int = 0  # given by `append`

    @property
    def recipient(self) -> str: return self.stream.partition(' ')[2]  # the user that a single message is for

    def is_repeated_by(self, other: Entry) -> bool:
        same_target = self.stream == other.stream or self.kind is Kind.CREATE_GROUP  # that target is new each time
        return self.kind is other.kind and same_target and self.text == other.text


def direct_stream(sender: str, recipient: str) -> str:
    """The stream of what `sender` writes to `recipient`.  No name has a space, and no group id."""
    return f'{sender} {recipient}'


# Names ...............................................................................................
def normalize(name: str) -> str:
    """The form in which a name is stored and looked up: NFC (Unicode, UAX #15).  What is too long for a name in any
    form stays as it is: a text of marks alone takes the square of its length, 3 s for 64 kB."""
    return name if name.isascii() or len(name) > 4 * MAX_NAME else unicodedata.normalize('NFC', name)


def name_key(name: str) -> str:
    """Two names with the same key are the same to a reader: 'Bob' and 'bob', and 'ｂｏｂ' in full width.  Not the
    other way round: a Cyrillic 'о' looks like a Latin one and is none."""
    return unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', name).casefold())


def is_valid_name(name: str) -> bool:
    """Whether a name may be registered: letters and digits of any script, '_', '-' and '.'."""
    return (0 < len(name) <= MAX_NAME and name_key(name) != SERVER_NAME
            and all(c in '_-.' or unicodedata.category(c)[0] == 'L' or unicodedata.category(c) == 'Nd' for c in name))


# Secrets .............................................................................................
class PasswordHash(NamedTuple):
    """What is kept of a password: scrypt (RFC 7914) with a salt of its own."""
    cost: int  # log2 of scrypt's N
    salt: bytes
    digest: bytes


def hash_password(password: str, cost: int, salt: bytes | None = None) -> PasswordHash:
    """Slow on purpose (some 50 ms at cost 14, twice that for each one more): not for the thread of the loop."""
    salt = salt or secrets.token_bytes(16)
    memory = 2 * 128 * SCRYPT_BLOCK * 2**cost  # twice what it needs; the default limit ends at cost 14
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**cost, r=SCRYPT_BLOCK, p=1, maxmem=memory, dklen=32)
    return PasswordHash(cost, salt, digest)


def password_matches(password: str, known: PasswordHash) -> bool:
    """As slow as `hash_password`.  The comparison takes the same time wherever they differ."""
    return hmac.compare_digest(hash_password(password, known.cost, known.salt).digest, known.digest)


class Passwords:
    """Judges passwords, but none of who was wrong too often lately.  That is counted by address and name, and by
    address: nobody locks another's account from elsewhere, and the typos of one lock nobody else out."""
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock  # seconds that never jump
        self._wrong: dict[tuple[str, ...], list[float]] = {}  # when; who was wrong last is the last

    def judge(self, address: str, user_id: str, password: str, known: PasswordHash) -> bool | None:
        """Return whether it is right; None: it was not looked at.  For one thread that is not the loop's: slow, and
        nobody is judged before the one in front has been counted."""
        now, limits = self._clock(), {(address,): WRONG_IN_ALL, (address, user_id): WRONG_FOR_A_NAME}
        wrong = {key: [at for at in self._wrong.get(key, ()) if at > now - WRONG_MEMORY] for key in limits}
        if any(len(wrong[key]) >= limit for key, limit in limits.items()):
            return None
        is_right = password_matches(password, known)
        for key in () if is_right else limits:
            self._wrong.pop(key, None)
            self._wrong[key] = [*wrong[key], now]
        while len(self._wrong) > WRONG_KEPT:
            del self._wrong[next(iter(self._wrong))]
        return is_right


def _token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()  # fast is fine: nobody guesses 32 random bytes


# The store ...........................................................................................
class Store:
    """The file at `path` (':memory:': none), locked for this process alone as long as it is open.

    `durability`: 'full' survives a power cut (each commit waits for the disk), 'normal' and 'off' only the death of the
    process.  Raises StoreError when the file cannot be used, and leaves it as it was."""
    def __init__(self, path: str, durability: str = 'full') -> None:
        self._entries: list[Entry] = []  # appended, not committed
        self._by_seq: dict[tuple[str, int], Entry] = {}  # of those, the numbered ones
        self._waiting: list[Then] = []
        self._failure: Exception | None = None
        self._delivered: dict[str, int] = {}  # not written yet
        self._last_seqs: dict[str, int] = {}  # a cache
        self._recent, self._recent_count = defaultdict[str, list[int]](list), 0  # by stream: ids that its index lacks
        self._streams, self._users = set[str](), set[str]()  # caches: single streams that have their reader; users
        try:
            if not path or os.path.isfile(path) and not os.access(path, os.W_OK):  # SQLite would say less, and later
                raise StoreError('the file may not be written' if path else 'it needs a name, or nothing is kept')
            if not (os.path.isfile(path) and os.path.getsize(path)):
                if os.path.isfile(f'{path}-wal'):  # SQLite would delete it
                    raise StoreError('it is gone or empty, and the newest messages, in the -wal file, are lost with it')
                if os.path.isfile(path):
                    logger.warning('%s is an empty file: a new database begins in it', path)
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
            with contextlib.ExitStack() as stack:
                stack.callback(self._db.close)
                self._open(path, durability)
                stack.pop_all()  # it went well: stay open
        except (StoreError, sqlite3.Error, UnicodeDecodeError) as error:  # the last: SQLite quotes what is broken
            reason = 'another program is using it' if 'locked' in str(error) else ' '.join(str(error).split())
            raise StoreError(f'cannot use the database {path}: {reason}') from error

    def _open(self, path: str, durability: str) -> None:
        self._db.execute('PRAGMA locking_mode = EXCLUSIVE')  # kept until we close, and no file of shared memory
        self._db.execute('BEGIN EXCLUSIVE')
        # SQLite reads what is missing of the last page as zeros.  By stat: to open and close the file ourselves would
        # give up SQLite's lock on it (POSIX).
        if os.path.isfile(path) and os.path.getsize(path) % self._value('PRAGMA page_size'):
            raise StoreError('it is corrupt: its last page is not whole')
        self._check()
        self.log_id: str = self._value('SELECT log_id FROM about')
        self.committed_id: int = self._value('SELECT max(message_id) FROM log') or 0  # the highest id on disk
        self._index_rest(self._value('SELECT max(last_id) FROM log_of_stream') or 0)
        if self._failure:
            raise self._failure
        self._db.execute('COMMIT')
        self._db.execute('PRAGMA journal_mode = WAL')
        self._db.execute(f'PRAGMA synchronous = {durability}')

    def _check(self) -> None:
        """Make the tables of a new file; raise StoreError for a file that is not ours or not whole."""
        application_id, version = self._value('PRAGMA application_id'), self._value('PRAGMA user_version')
        if application_id == 0 and not _schema_of(self._db):
            _schema_of(self._db, SCHEMA)
            self._db.execute('INSERT INTO about VALUES (?)', (secrets.token_hex(8),))
            return
        if application_id != APPLICATION_ID:
            raise StoreError('it belongs to another program')
        if version > SCHEMA_VERSION:
            raise StoreError(f'it was made by a newer version of this server (schema {version})')
        if version < SCHEMA_VERSION:
            _schema_of(self._db, UPGRADE)
        with contextlib.closing(sqlite3.connect(':memory:')) as fresh:
            if _schema_of(self._db) != _schema_of(fresh, SCHEMA):
                raise StoreError('it is corrupt: its tables are not those of this server')
        # The thorough check: the quick one does not look whether an index has lost entries.  1.6 s a million.
        if (found := self._value('PRAGMA integrity_check(1)')) != 'ok':
            raise StoreError(f'it is corrupt: {found}')
        all(self._db.execute('SELECT text, sender, stream FROM log UNION ALL SELECT ids, 0, 0 FROM log_of_stream '
                             'UNION ALL SELECT group_name, 0, 0 FROM groups'))  # is it UTF-8?
        if self._value(DAMAGED):
            raise StoreError('it is corrupt: a row holds what this server never writes')

    def close(self) -> None:  # commit what is collected and let go of the file
        self.save_delivered()
        self.commit()
        self._db.close()

    def _value(self, sql: str, *parameters: Any) -> Any:
        """Return the first column of the first row, None when there is none."""
        row = self._db.execute(sql, parameters).fetchone()
        return row[0] if row else None

    def _write(self, sql: str, *rows: tuple[Any, ...]) -> None:
        """Execute for each row in the transaction of this tick.  What goes wrong is told by `commit`."""
        if self._failure is None:
            try:
                if not self._db.in_transaction:
                    self._db.execute('BEGIN IMMEDIATE')
                self._db.executemany(sql, rows)
            except (sqlite3.Error, ValueError, OverflowError) as error:  # the last two: what no row can hold
                self._failure = error

    # The log
    def append(self, entry: Entry, then: Then) -> None:
        """Give `entry` its id and have it written with this tick; `then(is_durable)` is called after that."""
        entry.message_id = self.committed_id + len(self._entries) + 1
        self._entries.append(entry)
        if entry.client_seq:
            self._by_seq[entry.sender, entry.client_seq] = entry
            self._last_seqs[entry.sender] = entry.client_seq
        if entry.kind is MESSAGE and entry.stream not in self._streams:
            self._write('INSERT OR IGNORE INTO readers VALUES (?, ?, 0, NULL)', (entry.recipient, entry.stream))
            self._streams.add(entry.stream)
        self._waiting.append(then)

    def after_commit(self, then: Then) -> None:
        """Call `then(is_durable)` in its turn among those of the entries of this tick."""
        self._waiting.append(then)

    def commit(self) -> list[Entry]:
        """Write what was collected, tell those who wait for it, and return the entries that are now durable."""
        entries, waiting = self._entries, self._waiting
        for start in range(0, len(entries), ROWS_A_STATEMENT):
            rows = entries[start:start + ROWS_A_STATEMENT]
            self._write(_insertion_of(len(rows)), tuple(itertools.chain.from_iterable(map(_row_of, rows))))
        if indexes := self._recent_count >= RECENT:
            self._index_recent()
        is_durable = self._end_transaction()
        self._entries, self._waiting = [], []
        self._by_seq.clear()
        if is_durable:
            if indexes:
                self._recent, self._recent_count = defaultdict(list), 0
            self.committed_id += len(entries)
            self._recent_count += len(entries)
            for entry in entries:
                self._recent[entry.stream].append(entry.message_id)
        for cache in self._last_seqs, self._streams, self._users:
            if len(cache) > CACHE_SIZE:
                cache.clear()
        for then in waiting:
            try:
                then(is_durable)
            except Exception:
                logger.exception('bug: %r failed', then)
        return entries if is_durable else []

    def _end_transaction(self) -> bool:
        """Commit, or undo everything.  Return which."""
        if self._failure is None and self._db.in_transaction:
            try:
                self._db.execute('COMMIT')
            except sqlite3.Error as error:
                self._failure = error
        if self._failure is None:
            return True
        logger.error('nothing of this tick was kept: %s', self._failure)
        if self._db.in_transaction:
            self._db.execute('ROLLBACK')
        self._failure = None
        for cache in self._last_seqs, self._streams, self._users:
            cache.clear()  # it may hold what has now never happened
        return False

    def _index_recent(self) -> None:
        """Write the runs of ids that the index of streams lacks, with this transaction."""
        rows = [(stream, ids[start:start + RUN][-1], json.dumps(ids[start:start + RUN]))
                for stream, ids in sorted(self._recent.items()) for start in range(0, len(ids), RUN)]
        self._write('INSERT INTO log_of_stream VALUES (?, ?, ?)', *rows)

    def _index_rest(self, indexed_id: int) -> None:
        """At the start: remember, or write, what the index lacks."""
        for message_id, stream in self._db.execute(f'SELECT message_id, stream FROM log WHERE message_id>{indexed_id}'):
            self._recent[stream].append(message_id)
            self._recent_count += 1
            if self._recent_count >= RECENT:
                self._index_recent()
                self._recent, self._recent_count = defaultdict(list), 0

    def is_durable(self, entry: Entry) -> bool: return 0 < entry.message_id <= self.committed_id

    def last_client_seq(self, user_id: str) -> int:  # the highest number with which this user made an entry; 0 if none
        if (known := self._last_seqs.get(user_id)) is None:
            known = self._value('SELECT max(client_seq) FROM log WHERE sender = ? AND client_seq > 0', user_id) or 0
            self._last_seqs[user_id] = known
        return known

    def find_entry(self, sender: str, client_seq: int) -> Entry | None:
        """The entry that `sender` made with that number, committed or not."""
        if entry := self._by_seq.get((sender, client_seq)):
            return entry
        return next(iter(self._log('sender = ? AND client_seq = ? AND client_seq > 0', sender, client_seq)), None)

    def _log(self, where: str, *parameters: Any) -> list[Entry]:
        """The committed entries `where`, in the order of their ids."""
        rows = self._db.execute(f'SELECT {ENTRY_COLUMNS} FROM log WHERE {where} ORDER BY message_id', parameters)
        return [Entry(_KINDS[kind], *others) for kind, *others in rows]

    def _entries_of(self, ids: list[int], streams: Collection[str]) -> list[Entry]:
        entries = self._log('message_id IN (SELECT value FROM json_each(?))', json.dumps(ids))
        return [entry for entry in entries if entry.stream in streams]  # whatever a damaged index says

    def _ids(self, stream: str, after_id: int, before_id: int, order: str = 'ASC') -> Iterator[int]:
        """The ids of the committed entries of a stream between those two; lazily."""
        rows = self._db.execute(f'''
            SELECT ids FROM log_of_stream WHERE stream = :stream AND last_id > :after AND last_id <= coalesce(
                (SELECT min(last_id) FROM log_of_stream WHERE stream = :stream AND last_id >= :before), :before)
            ORDER BY last_id {order}''', {'stream': stream, 'after': after_id, 'before': before_id})
        indexed, recent = (json.loads(ids) for ids, in rows), [self._recent_ids(stream, after_id, before_id)]
        for run in itertools.chain(indexed, recent) if order == 'ASC' else itertools.chain(recent, indexed):
            found = [message_id for message_id in run if after_id < message_id < before_id]
            yield from found if order == 'ASC' else reversed(found)

    def _recent_ids(self, stream: str, after_id: int, before_id: int) -> list[int]:
        return (ids := self._recent.get(stream, []))[bisect_right(ids, after_id):bisect_left(ids, before_id)]

    # What was delivered, and what was not
    def delivered_id(self, user_id: str) -> int:  # the id up to which everything was delivered to this user
        known = self._delivered.get(user_id)
        return self._value('SELECT delivered_id FROM users WHERE user_id = ?', user_id) if known is None else known

    def set_delivered(self, user_id: str, message_id: int) -> None:
        """Written down by the next `save_delivered`: to lose it only sends again."""
        self._delivered[user_id] = message_id

    def save_delivered(self, *user_ids: str) -> None:  # with this tick: of these users; with none named, of all
        saved = {u: self._delivered[u] for u in user_ids or self._delivered if u in self._delivered}
        if saved:
            self._write('UPDATE users SET delivered_id = ? WHERE user_id = ?', *((d, u) for u, d in saved.items()))
            self.after_commit(lambda is_durable: self._forget_delivered(saved) if is_durable else None)

    def _forget_delivered(self, saved: dict[str, int]) -> None:
        for user_id, message_id in saved.items():
            if self._delivered.get(user_id) == message_id:  # else it has grown, or another save was first
                del self._delivered[user_id]

    def unread(self, user_id: str, after_id: int, limit: int) -> list[Entry]:
        """The first `limit` committed entries above `after_id` that this user reads, in the order of their ids.
        First which: the ids of their streams are merged, as far as the page goes.  Then their rows."""
        spans = self._db.execute(f'''
            SELECT stream, max(after_id, :after), coalesce(before_id, :forever), (
                SELECT group_concat(ids) FROM log_of_stream AS l
                WHERE l.stream = readers.stream AND last_id > max(after_id, :after) AND last_id <= coalesce((
                    SELECT last_id FROM log_of_stream AS l WHERE l.stream = readers.stream
                    AND last_id > max(after_id, :after) ORDER BY last_id LIMIT 1 OFFSET {RUNS_AT_ONCE - 1}), :forever))
            FROM readers WHERE user_id = :user AND coalesce(before_id, :forever) > :after''',
            {'user': user_id, 'after': after_id, 'forever': FOREVER}).fetchall()
        ids = list(itertools.islice(heapq.merge(*[self._ids_from(*span) for span in spans]), limit))
        return self._entries_of(ids, {stream for stream, *_ in spans}) if ids else []

    def _ids_from(self, stream: str, after_id: int, before_id: int, indexed: str | None) -> Iterator[int]:
        """The ids of a stream between those two, lazily; the first runs of the index are given: '[1,3],[4]'."""
        texts = indexed[1:-1].split('],[') if indexed else []
        for text in sorted(texts, key=lambda text: int(text.partition(',')[0])):  # parsed when reached: maybe many
            run = [*map(int, text.split(','))]
            yield from [message_id for message_id in run if after_id < message_id < before_id]
        yield from (self._ids(stream, run[-1], before_id) if len(texts) == RUNS_AT_ONCE else
                    self._recent_ids(stream, after_id, before_id))

    def history_with(self, user_id: str, peer: str, before_id: int) -> Iterator[Entry]:
        """The messages between the two below `before_id`, the newest first; lazily."""
        streams = {direct_stream(user_id, peer), direct_stream(peer, user_id)}  # one, with oneself
        ids = heapq.merge(*[self._ids(stream, 0, before_id, 'DESC') for stream in streams], reverse=True)
        return self._newest_first(ids, streams)

    def _newest_first(self, ids: Iterator[int], streams: Collection[str]) -> Iterator[Entry]:
        while some := list(itertools.islice(ids, HISTORY_STEP)):
            yield from reversed(self._entries_of(some, streams))

    def history_of_group(self, user_id: str, group_id: str, before_id: int) -> Iterator[Entry]:
        """The messages of the times in which the user was in that group, as `history_with`."""
        spans = self._db.execute('''
            SELECT after_id, min(coalesce(before_id, :before), :before) FROM readers
            WHERE user_id = :user AND stream = :stream ORDER BY after_id DESC''',
            {'user': user_id, 'stream': group_id, 'before': before_id}).fetchall()
        for span in spans:
            for entry in self._newest_first(self._ids(group_id, *span, 'DESC'), {group_id}):
                if entry.kind is GROUP_MESSAGE:
                    yield entry

    # Groups
    def create_group(self, entry: Entry, group_name: str | None, members: Iterable[str], then: Then) -> None:
        """Append the creation of the group `entry.stream`; the others read it, its creator what comes after it."""
        self.append(entry, then)
        others = set(members) - {entry.sender}
        self._write('INSERT INTO groups VALUES (?, ?)', (entry.stream, group_name))
        self._write('INSERT INTO readers VALUES (?, ?, ?, NULL)', (entry.sender, entry.stream, entry.message_id),
                    *((user_id, entry.stream, entry.message_id - 1) for user_id in others))

    def join_group(self, entry: Entry, then: Then) -> None:
        self.append(entry, then)
        self._write('INSERT INTO readers VALUES (?, ?, ?, NULL)', (entry.sender, entry.stream, entry.message_id))

    def quit_group(self, entry: Entry, then: Then) -> None:
        self.append(entry, then)
        self._write('UPDATE readers INDEXED BY readers_now SET before_id = ? WHERE user_id = ? AND stream = ? '
                    'AND before_id IS NULL', (entry.message_id, entry.sender, entry.stream))

    # These answer for the middle of a tick too: what it has changed so far counts.  They look at `groups` as well: the
    # stream of what one user writes to another is no group, whatever name a request gives.
    def new_group_id(self) -> str:  # return 8 hex digits that no group has
        while self.group_exists(group_id := secrets.token_hex(4)):
            pass
        return group_id

    def group_exists(self, group_id: str) -> bool:
        return self._value('SELECT 1 FROM groups WHERE group_id = ?', group_id) is not None

    def group_name(self, group_id: str) -> str | None:
        return self._value('SELECT group_name FROM groups WHERE group_id = ?', group_id)

    def is_member(self, user_id: str, group_id: str) -> bool:
        return self._value('SELECT 1 FROM readers INDEXED BY readers_now JOIN groups ON group_id = stream '
                           'WHERE user_id = ? AND stream = ? AND before_id IS NULL', user_id, group_id) is not None

    def was_member(self, user_id: str, group_id: str) -> bool:  # whether the user is or ever was in it
        return self._value('SELECT 1 FROM readers JOIN groups ON group_id = stream '
                           'WHERE user_id = ? AND stream = ?', user_id, group_id) is not None

    def count_members(self, group_id: str) -> int:
        return self._value('SELECT count(*) FROM readers INDEXED BY readers_now '
                           'WHERE stream = ? AND before_id IS NULL', group_id)

    def members(self, group_id: str, at_id: int) -> list[str]:
        """Those in the group once the entry `at_id` has happened, by name."""
        return [user_id for user_id, in self._db.execute('''
            SELECT user_id FROM readers JOIN groups ON group_id = stream
            WHERE stream = ? AND after_id <= ? AND coalesce(before_id, ?) > ? ORDER BY user_id''',
                                                         (group_id, at_id, FOREVER, at_id))]

    def groups_of(self, user_id: str) -> list[tuple[str, str | None, int]]:
        """Group id, name and number of members of each group that the user is in."""
        return self._db.execute('''
            SELECT group_id, group_name, (SELECT count(*) FROM readers AS r
                                          WHERE r.stream = group_id AND r.before_id IS NULL)
            FROM readers JOIN groups ON group_id = stream
            WHERE user_id = ? AND before_id IS NULL ORDER BY group_id''', (user_id,)).fetchall()

    # Users
    def user_exists(self, user_id: str) -> bool:
        if user_id not in self._users and self._value('SELECT 1 FROM users WHERE user_id = ?', user_id):
            self._users.add(user_id)
        return user_id in self._users

    def known_users(self, user_ids: Iterable[str]) -> list[str]:  # those of `user_ids` that exist, by name
        wanted = set(user_ids)
        rows = self._db.execute('SELECT user_id FROM users WHERE user_id IN (SELECT value FROM json_each(?)) '
                                'ORDER BY user_id', (json.dumps(list(wanted)),))
        return [user_id for user_id, in rows if user_id in wanted]  # SQLite's JSON takes 'bob\0' for 'bob'

    def list_users(self, limit: int) -> list[str]:
        return [user for user, in self._db.execute('SELECT user_id FROM users ORDER BY user_id LIMIT ?', (limit,))]

    def name_is_taken(self, name_key: str) -> bool:  # whether some user has a name with this `name_key`
        return self._value('SELECT 1 FROM users WHERE name_key = ?', name_key) is not None

    def password_of(self, user_id: str) -> PasswordHash | None:
        row = self._db.execute('SELECT cost, salt, digest FROM users WHERE user_id = ?', (user_id,)).fetchone()
        return PasswordHash(*row) if row else None

    def add_user(self, user_id: str, name_key: str, password: PasswordHash) -> None:
        self._write('INSERT INTO users (user_id, name_key, cost, salt, digest) VALUES (?, ?, ?, ?, ?)',
                    (user_id, name_key, *password))

    def set_password(self, user_id: str, password: PasswordHash) -> str:
        """Make the account, or end the old password and its token; commit.  Return what is wrong, '' for nothing."""
        outcome: list[bool] = []
        if self.user_exists(user_id):
            self._write('UPDATE users SET cost = ?, salt = ?, digest = ? WHERE user_id = ?', (*password, user_id))
            self.end_token(user_id)
        elif is_valid_name(user_id) and not self.name_is_taken(name_key(user_id)):
            self.add_user(user_id, name_key(user_id), password)
        else:
            return f'{user_id!r} is no valid name, or looks like one that is taken'
        self.after_commit(outcome.append)
        self.commit()
        return '' if outcome[0] else 'the database could not be written'

    def new_token(self, user_id: str, now: float) -> str:
        """Return a token good for TOKEN_LIFETIME from `now` on (seconds since 1970); the old one ends."""
        token = secrets.token_urlsafe(32)
        self._write('UPDATE users SET token_digest = ?, token_ends_at = ? WHERE user_id = ?',
                    (_token_digest(token), now + TOKEN_LIFETIME, user_id))
        return token

    def end_token(self, user_id: str) -> None:
        self._write('UPDATE users SET token_digest = NULL WHERE user_id = ?', (user_id,))

    def token_matches(self, user_id: str, token: str, now: float) -> bool:
        row = self._db.execute('SELECT token_digest, token_ends_at FROM users WHERE user_id = ?', (user_id,)).fetchone()
        return bool(row and row[0] and now < row[1] and hmac.compare_digest(row[0], _token_digest(token)))


def _schema_of(db: sqlite3.Connection, *statements: str) -> list[tuple[str, str]]:  # what there is after these
    for statement in ';'.join(statements).split(';'):  # not executescript: that would commit, and give up the lock
        db.execute(statement)
    return db.execute('SELECT name, sql FROM sqlite_master ORDER BY name').fetchall()


@functools.cache
def _insertion_of(count: int) -> str:
    """The statement that inserts so many entries: a third faster for 32 rows than one row after the other."""
    row = '({})'.format(', '.join('?' * len(ENTRY_COLUMNS.split(', '))))
    return f'INSERT INTO log ({ENTRY_COLUMNS}) VALUES {", ".join([row] * count)}'


_KINDS = {kind.real: kind for kind in Kind}  # `real`: a plain number, taken by SQLite's module in a fourth of the time
_row_of = operator.attrgetter('kind.real', *ENTRY_COLUMNS.split(', ')[1:])
