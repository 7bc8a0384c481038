"""The keyboard and the screen of the chat client: bytes of keys become lines, events become text.

What it does: edits the line being typed, shows what happens above it, and lets nobody's text steer the terminal.  What
it leaves to others: reading the bytes, understanding the lines, making the events (imclient.py).  It knows no socket
and no packet, waits for nothing and starts no thread.

    bytes from standard input                          events (dicts) of the client
        Terminal.feed                                     Chats: who there is, what is unread
        LineEditor.feed --> lines and `Key`s for it       render: text that steers nothing
        LineEditor.view         -- carol joined #team     Terminal.print: folded to the terminal's width; it stays
              v                 10:32 alice: hi      <------'
        > half a line_  <-----  > half a line_            the last row: overwritten with blanks, drawn again below

The sequences that keys send are xterm's (`ctlseqs`) and those of ECMA-48 (5th edition, 1991); the width of characters
is that of Unicode's UAX #11.  Only colours are sent as sequences: carriage return, backspace and blanks do the rest.
"""
from __future__ import annotations

import argparse
import codecs
import contextlib
import enum
import getpass
import os
import re
import shutil
import signal
import time
import unicodedata
import zlib
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

try:
    import termios
except ImportError:  # Windows: `make_terminal` gives a PlainTerminal there
    termios = None

# More than a request may have (LARGEST_REQUEST).  What is longer is cut and then, if it was no blanks, refused.
LINE_LIMIT = 32_768
SEQUENCE_LIMIT = 16  # characters of an escape sequence that are kept; the longest one we know has four
TYPED_LIMIT = 1_000  # lines that can be called back, and that the file keeps
KNOWN_NAMES, LONGEST_ID = 2_000, 64  # groups, as many as a server lists, and users that are remembered; characters

INDENT = '    | '  # before every row that continues a message: nothing a sender writes begins at the left edge
# Unicode's categories of characters that are not seen but do something: controls, format characters (among them those
# that turn the direction of writing), line and paragraph separators, lone surrogates.
STEERING = frozenset({'Cc', 'Cf', 'Zl', 'Zp', 'Cs'})
JOINERS = '\u200c\u200d'  # these format characters steer nothing: Persian needs them, and emoji of several parts
BOLD, DIM, RED = '1', '2', '31'  # ECMA-48 SGR, "select graphic rendition"
NAME_COLORS = ('32', '33', '34', '35', '36', '92', '93', '94', '95', '96')  # all but red, which says that it failed
GROUP_ID = re.compile('[0-9a-f]{8}')  # a user may have such a name too: then /msg writes to the user
Utf8Decoder = codecs.getincrementaldecoder('utf-8')  # keeps the bytes of a character that is not whole yet
PLAIN_NAME = re.compile(r'(?![0-9a-f]{8}$)[\w.-]{1,64}')  # of a group; others could pass for an id, or for speech


# 1. Text on a screen .................................................................................
def escape(text: str) -> str:
    r"""`text` with each character that could steer a terminal spelt out: `\n`, `\x1b`, `\u202e` and so on.  A backslash
    stays as it is, so an escaped ESC and the four characters `\x1b` look the same here.  Nothing is lost by that but
    certainty about a character nobody can see; doubling would spoil every `C:\new`."""
    return text if text.isprintable() else ''.join(  # mostly; what has a character of STEERING in it never is
        char if char in JOINERS or unicodedata.category(char) not in STEERING else
        char.encode('unicode_escape').decode('ascii') for char in text)


def escape_block(text: str, indent: str) -> str:
    """`text` escaped, but with its line breaks kept; every line after the first begins with `indent`."""
    return f'\n{indent}'.join(map(escape, text.replace('\r\n', '\n').split('\n')))


def width(text: str) -> int:
    """How many columns `text` takes in a terminal: 2 for what UAX #11 calls wide or fullwidth, 0 for marks.  Honest
    simplification: each character counts for itself.  Terminals that join a flag, a skin tone or a U+FE0F with its
    neighbour disagree by a column or two; the row is right again at the next redraw."""
    return len(text) if text.isascii() else sum(
        0 if unicodedata.category(char) in ('Mn', 'Me', 'Cf') else  # first: some marks are "wide" too
        2 if unicodedata.east_asian_width(char) in 'WF' else 1 for char in text)


def clip(text: str, first: int, last: int) -> str:
    """What of `text` is in the columns `first` to `last` - 1; a wide character is never cut in half."""
    shown, column = [], 0
    for char in text:
        end = column + width(char)
        if first < end <= last:  # false for a combining mark at the left edge too: its base is not shown
            shown.append(char if first <= column else ' ')  # ' ': the right half of a wide character
        column = end
    return ''.join(shown)


def fold(line: str, columns: int) -> str:
    """`line` (colours and all) broken, between words if it can be, into rows of at most `columns`, each but the first
    begun by INDENT: left to the terminal, with the right number of blanks before it, a stranger's text would stand at
    the left edge looking like a line of somebody else."""
    rows, used = [''], 0
    for word in re.findall(r'\x1b\[[0-9;]*m|[^\s\x1b]+|.', line):
        fits = word[0] == '\x1b' or width(word) <= columns - len(INDENT) or used + width(word) <= columns
        for piece in [word] if fits else word:
            wide = 0 if piece[0] == '\x1b' else width(piece)
            if used + wide > columns:
                rows.append(INDENT)
                used = len(INDENT)
                if piece == ' ':  # no row begins with the blank at which it was broken
                    continue
            rows[-1] += piece
            used += wide
    return '\n'.join(rows)


# 2. Lines out of a pipe ..............................................................................
class Key(enum.Enum):  # those that are no text; a `feed` returns them among the lines, in the order of typing
    EMPTY = 'Ctrl-C on an empty line'
    INTERRUPT = 'Ctrl-C, and before it Ctrl-C'
    SUSPEND = 'Ctrl-Z'
    END = 'Ctrl-D on an empty line, or the end of the input'


class LineReader:  # lines out of bytes that come in pieces, cut anywhere.  For pipes and files: no keys, no editing
    def __init__(self) -> None:
        self._decoder, self._rest = Utf8Decoder('replace'), ''  # the line that has no end yet

    def feed(self, data: bytes) -> list[str | Key]:
        """The lines that `data` completes, without their line breaks, at most LINE_LIMIT characters each."""
        *lines, self._rest = [line[:LINE_LIMIT] for line in (self._rest + self._decoder.decode(data)).split('\n')]
        return [line.removesuffix('\r') for line in lines]

    def finish(self) -> list[str | Key]:  # the input is at its end: the last line if it had no line break, and Key.END
        last, self._rest = self._rest + self._decoder.decode(b'', final=True), ''
        return [last, Key.END] if last else [Key.END]


# 3. Lines out of a keyboard ..........................................................................
# What has begun as an escape sequence and is not at its end yet (ECMA-48, 5.4 and 5.6): SS3 or CSI with parameters and
# intermediate characters; the Linux console's F1 to F5, ESC [ [ A and so on; a string (DCS, SOS, OSC, PM, APC), which
# goes on up to a control character.  Anything else after ESC is at its end at once: Alt and a key.
_UNFINISHED = re.compile(r'\x1b([O\[][0-?]*[ -/]*|\[\[|[PX\]^_].*)?')


class LineEditor:
    """One line being typed: bytes of keys in, finished lines out; no input or output of its own.

    `text` is what is typed so far and `cursor` a place in it, counted in code points.  Where `hidden`, `view` shows
    only the `prompt` (a password is typed).  `history`: lines entered before.  `complete(text)`: what the last word of
    a line that begins so may become, printable."""
    def __init__(self, prompt: str = '', hidden: bool = False) -> None:
        self.prompt, self.hidden = prompt, hidden
        self.text, self.cursor = '', 0
        self.history: list[str] = []
        self.complete: Callable[[str], list[str]] = lambda text: []
        self._back, self._draft = 0, ''  # how far back in the history; what was typed before that
        self._offers, self._offered = deque[str](), ''  # what Tab puts in next; what it has put in
        self._decoder = Utf8Decoder('replace')
        self._sequence, self._last = '', ''  # the escape sequence we are in, so far; the character before

    def feed(self, data: bytes) -> list[str | Key]:
        """Press the keys that `data` (UTF-8, cut anywhere) stands for; return what they finished."""
        return [result for char in self._decoder.decode(data) if (result := self._press(char)) is not None]

    def _press(self, char: str) -> str | Key | None:
        last, self._last = self._last, char
        if last + char == '\r\n':  # one line break, not two
            return None
        if char < ' ' or char == '\x7f':  # ends what a lone Esc began: no timer tells it apart
            self._sequence = ''
        key = self._sequence + char
        if _UNFINISHED.fullmatch(key):
            self._sequence = key[:SEQUENCE_LIMIT]
            return None
        self._sequence = ''
        if key != '\t':
            self._offers.clear()
        return Key.INTERRUPT if last == key == '\x03' else self._act(key)

    def _act(self, key: str) -> str | Key | None:
        if key in self._MOVES:
            self.cursor = self._MOVES[key](self)
        elif key == '\x04' and not self.text:  # Ctrl-D; with text it is one of the cuts
            return Key.END
        elif key in self._CUTS:
            self._cut(self._CUTS[key](self))
        elif key in self._STEPS:
            self._recall(self._STEPS[key])
        elif key in ('\r', '\n'):
            return self._enter()
        elif key == '\x03':
            return Key.EMPTY if not self.clear() or self.hidden else None
        elif key == '\x1a':
            return Key.SUSPEND
        elif key == '\t':
            self._complete()
        elif len(key) == 1:  # longer: an escape sequence that means nothing to us
            self._insert(key)
        return None

    def view(self, columns: int) -> tuple[str, int]:
        """What to show in a row of `columns`, and the cursor's column in it, from 0.  Honest simplification: one row,
        ever.  A line that does not fit slides under it in steps of half a row, which follow from the cursor alone."""
        prompt, text = escape(self.prompt), '' if self.hidden else self.text
        cursor = width(prompt + text[:self.cursor])
        room = max(columns - 1, 2)  # the cursor behind the last character needs a column too
        half = room // 2
        first = max(cursor // half - 1, 0) * half
        # What steers is sent but not shown: format characters turn rows around, a history may hold worse.
        text = ''.join(char for char in text if unicodedata.category(char) not in STEERING)
        return clip(prompt + text, first, first + room), cursor - first

    def clear(self) -> str:  # begin an empty line; return what was typed
        text, self.text, self.cursor, self._back = self.text, '', 0, 0
        self._offers.clear()
        return text

    def _enter(self) -> str:
        if self.text.strip() and not self.hidden and self.history[-1:] != [self.text]:
            self.history[:] = [*self.history, self.text][-TYPED_LIMIT:]
        return self.clear()

    def _recall(self, step: int) -> None:
        if 0 <= self._back + step <= len(self.history) and not self.hidden:
            self._draft = self._draft if self._back else self.text
            self._back += step
            self.text = self.history[-self._back] if self._back else self._draft
            self.cursor = len(self.text)

    def _complete(self) -> None:
        """Put in the one thing that the word may become; where there are several, one after the other."""
        if not self._offers and not self.hidden:
            before = self.text[:self.cursor]
            self._offered, offers = before.rpartition(' ')[2], self.complete(before)
            self._offers.extend([f'{offers[0]} '] if len(offers) == 1 else [*offers, self._offered] if offers else [])
            if not offers and before[:1] not in ('', '/'):  # pasted, a tab is a blank between two words
                self._insert(' ')
        if self._offers:
            start, self._offered = self.cursor - len(self._offered), self._offers.popleft()
            self.text = self.text[:start] + self._offered + self.text[self.cursor:]
            self.cursor = start + len(self._offered)
            self._offers.extend([self._offered] if self._offers else [])

    def _insert(self, char: str) -> None:
        if len(self.text) < LINE_LIMIT and unicodedata.category(char) not in ('Cc', 'Zl', 'Zp'):
            self.text = self.text[:self.cursor] + char + self.text[self.cursor:]
            self.cursor += 1

    def _cut(self, place: int) -> None:
        start, end = sorted((self.cursor, place))
        self.text, self.cursor = self.text[:start] + self.text[end:], start

    # Places in the text, seen from the cursor.  A key moves there, or cuts all between there and the cursor.
    def _step(self, by: int) -> int:
        place = self.cursor + by
        while 0 < place < len(self.text) and not width(self.text[place]):  # a combining character stays with its base
            place += by
        return min(max(place, 0), len(self.text))

    def _left(self) -> int: return self._step(-1)
    def _right(self) -> int: return self._step(1)
    def _start(self) -> int: return 0
    def _end(self) -> int: return len(self.text)
    def _word(self) -> int:
        before = self.text[:self.cursor].rstrip()
        return len(before) - len(before.split()[-1]) if before else 0

    # Cursor keys come as ESC [ or ESC O (xterm's "application" mode), Home and End also by number.
    _MOVES = {
        '\x1b[D': _left, '\x1bOD': _left, '\x02': _left,                            # and Ctrl-B
        '\x1b[C': _right, '\x1bOC': _right, '\x06': _right,                         # Ctrl-F
        '\x1b[H': _start, '\x1bOH': _start, '\x1b[1~': _start, '\x01': _start,      # Ctrl-A
        '\x1b[F': _end, '\x1bOF': _end, '\x1b[4~': _end, '\x05': _end,              # Ctrl-E
    }
    _CUTS = {
        '\x7f': _left, '\x08': _left, '\x1b[3~': _right, '\x04': _right,            # ... and Ctrl-D
        '\x15': _start, '\x0b': _end, '\x17': _word,                                # Ctrl-U, Ctrl-K, Ctrl-W
    }
    _STEPS = {'\x1b[A': 1, '\x1bOA': 1, '\x10': 1, '\x1b[B': -1, '\x1bOB': -1, '\x0e': -1}  # Ctrl-P, Ctrl-N


# 4. The terminal .....................................................................................
def load_history(path: Path) -> list[str]:
    """The lines of earlier runs, the last TYPED_LIMIT; none where they cannot be read."""
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding='utf-8', errors='replace').split('\n')[:-1]
        if len(lines) > 2 * TYPED_LIMIT:  # not each time: another client may be writing
            path.write_text('\n'.join([*lines[-TYPED_LIMIT:], '']), encoding='utf-8')
        return lines[-TYPED_LIMIT:]
    return []


def keep_line(path: Path, line: str) -> None:
    """Add a line to that file, which is made so that only its owner may read it."""
    with contextlib.suppress(OSError):  # a full disk, or no home: no reason to bother a chat
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, 'a+', encoding='utf-8', errors='replace', opener=lambda *how: os.open(*how, 0o600)) as file:
            file.write(f'{line}\n')


class PlainTerminal(LineReader):
    """Lines in and lines out, for everything that is no terminal we can steer: pipes, files, Windows.  `output` is a
    buffered binary stream such as `sys.stdout.buffer`; we write UTF-8, as we read it."""
    def __init__(self, output: BinaryIO) -> None:
        super().__init__()
        self._output = output

    def __enter__(self) -> PlainTerminal:
        self.open()
        return self

    def __exit__(self, *_error: object) -> None: self.close()
    def open(self) -> None: """Nothing to prepare here."""
    def close(self) -> None: """Nothing to put back here."""
    def redraw(self) -> None: """Nothing to draw again here."""

    def print(self, text: str) -> None:
        """Write one or more lines.  `text` must be safe to show (see `escape`) and ends without a newline."""
        self._write(f'{text}\n')

    def ask(self, prompt: str, secret: bool = False) -> None:
        """Put a question that the next line answers, where somebody can see it: what is `secret` shows here too."""
        if secret and self._output.isatty():
            self.print(escape(prompt))

    def _write(self, text: str) -> None:
        # Waits while the terminal does not take the bytes: somebody selecting text stops the whole client.
        self._output.write(text.encode('utf-8', errors='backslashreplace'))
        self._output.flush()


class Terminal(PlainTerminal):
    """A terminal whose last row belongs to the line being typed; all that is printed goes above it.

    `keyboard` is the file descriptor of standard input, a terminal; `columns` tells how wide the screen is now.  The
    row is drawn between `open` and `close` only.  A line that was entered is erased: the event it leads to stays.
    Honest simplification: where the screen becomes narrower, a piece of a long line may stay behind."""
    def __init__(self, output: BinaryIO, keyboard: int,
                 columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns) -> None:
        super().__init__(output)
        self.editor, self._keyboard, self._columns = LineEditor(), keyboard, columns
        self._saved: list[Any] | None = None  # the terminal's settings while it is ours

    def open(self) -> None:
        """Take every key as it comes, without a meaning of its own.  Twice is once.  termios.error: no terminal."""
        if self._saved is not None:
            return
        self._saved = termios.tcgetattr(self._keyboard)
        iflag, oflag, cflag, lflag, ispeed, ospeed, chars = termios.tcgetattr(self._keyboard)
        # ECHO, ICANON: the editor's work.  ISIG: Ctrl-C is a key.  IEXTEN: so is Ctrl-V.  IXON: so is Ctrl-S.  ICRNL: a
        # pasted \r\n stays one line break.  OPOST, in oflag, stays on: \n goes to the left edge.
        lflag &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        iflag &= ~(termios.IXON | termios.ICRNL)
        chars[termios.VMIN], chars[termios.VTIME] = 1, 0
        settings = [iflag, oflag, cflag, lflag, ispeed, ospeed, chars]
        termios.tcsetattr(self._keyboard, termios.TCSANOW, settings)  # NOW: keeps the keys typed before
        self.redraw()

    def close(self) -> None:
        """Erase the row and put the terminal back as it was.  Twice is once, and it never raises."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        with contextlib.suppress(termios.error, OSError, ValueError):  # gone: nobody is left to see it
            termios.tcsetattr(self._keyboard, termios.TCSANOW, saved)
            self._write(self._blank())

    def feed(self, data: bytes) -> list[str | Key]:
        """Take what the keyboard sent; return the lines and keys that it finished."""
        results = self.editor.feed(data)
        self.redraw()
        return results

    def finish(self) -> list[str | Key]: return [Key.END]  # a line that is half typed was never entered

    def print(self, text: str) -> None:
        rows = '\n'.join(fold(line, self._columns()) for line in text.split('\n'))
        self._write(f'{self._blank()}{rows}\n{self._row()}' if self._saved else f'{rows}\n')

    def ask(self, prompt: str, secret: bool = False) -> None:
        """Plain text before the line from now on; if `secret`, nothing of the line shows until the next `ask`."""
        if self.editor.hidden and not secret:
            self.editor.clear()  # half a password must not show under the next prompt
        self.editor.prompt, self.editor.hidden = prompt, secret
        self.redraw()

    def redraw(self) -> None:  # draw the row again, for example after the terminal's size has changed
        if self._saved:
            self._write(self._blank() + self._row())

    def _blank(self) -> str: return f'\r{" " * (self._columns() - 1)}\r'

    def _row(self) -> str:
        row, cursor = self.editor.view(self._columns())
        return row + '\b' * (width(row) - cursor)


def make_terminal(output: BinaryIO, keyboard: int = 0) -> PlainTerminal:
    """A Terminal where both ends are one, else a PlainTerminal."""
    is_one = termios and os.isatty(keyboard) and output.isatty() and os.environ.get('TERM') != 'dumb'
    return Terminal(output, keyboard) if is_one else PlainTerminal(output)


# 5. What a person has in front of them ...............................................................
class Chats:
    """Who and which groups there are, and what is unread: learnt from the events of one user, and told as text.  A
    group has an id for the server and, perhaps, a name for people: `#team`.  The id stands in for a name that is none,
    that two groups have, or that could pass for something somebody said."""
    def __init__(self) -> None:
        self.front = ''  # where plain text goes: a user's name or a group's id
        self.users, self.groups = set[str](), dict[str, str]()  # ids, and the groups' names or ''
        self._unread = Counter[str]()

    def note(self, event: dict[str, Any], me: str) -> None:  # learn from `event`, one of the user `me`
        for group in event.get('groupList', [event]):
            group_id, name = group.get('groupId', ''), group.get('groupName', '')
            if 0 < len(group_id) <= LONGEST_ID and (len(self.groups) < KNOWN_NAMES or group_id in self.groups):
                known = self.groups.setdefault(group_id, '')
                self.groups[group_id] = name if PLAIN_NAME.fullmatch(name) else known
        self.front = '' if (event['event'], event.get('groupId')) == ('left', self.front) else self.front
        people = [user.get('userId', '') for user in event.get('userList') or event.get('sessionList') or []]
        people.append(event.get('fromUserId', event.get('userId', event.get('toUserId', ''))))
        names = {name for name in people if 0 < len(name) <= LONGEST_ID and name != me}
        self.users.update(list(names)[:max(KNOWN_NAMES - len(self.users), 0)])
        about, is_own = event.get('groupId', people[-1]), event['event'] == 'sent' or people[-1] in ('', me)
        if event['event'] in ('message', 'group_message', 'sent') and (about in self.users or about in self.groups):
            self._unread[about] = 0 if is_own else self._unread[about] + 1  # who answers has read it

    def title(self, target: str) -> str:
        """How a conversation is called: `bob`, `#team`, `#1a2b3c4d`."""
        name = self.groups.get(target)
        is_unique = name and sum(name == other for other in self.groups.values()) == 1
        return target if name is None else f'#{name if is_unique else target}'

    def find(self, word: str) -> str:
        """The user or group that `word` is about, `title` turned around; '' for a group that is not known."""
        named = [group_id for group_id, name in self.groups.items() if word in (f'#{name or group_id}', f'#{group_id}')]
        named += [word[1:]] if GROUP_ID.fullmatch(word[1:]) and not named else []
        return word if word[:1] != '#' else named[0] if len(named) == 1 else ''

    def unread(self) -> str:
        """What waits in conversations that are not in front."""
        self._unread.pop(self.front, None)
        counts = [f'{self.title(target)} {count}' for target, count in self._unread.most_common(3) if count]
        return f' ({", ".join(counts)})' if counts else ''


# 6. Events as text ...................................................................................
# The events that are one sentence.  {user}, {who}, {group}, {people} and {cause} are made by `_Page.fields`.
_SENTENCES = {
    'connected': '-- connected to {host} port {port}', 'disconnected': '-- disconnected: {reason}',
    'reconnecting': '-- {why}connecting again in {delay:.1f} s',
    'login': '-- logged in as {user}, protocol version {version}', 'login_failed': '! login failed: {cause}',
    'logged_out': '-- logged out', 'kicked': '! the server ended this session: {cause}', 'error': '! {cause}',
    'joined': '-- you joined group {group}', 'left': '-- you left group {group}',
    'notice': '-- {who} {action} group {group}', 'members': '-- group {group} has {people}',
    'users': '-- users: {people}', 'info': '-- {text}'}
# What to do next, by the code of a refusal.
_ADVICE = {
    'unknown_user': '/users lists who there is', 'unknown_group': '/groups lists yours',
    'not_a_member': '/join it first', 'already_a_member': '/chat writes to it', 'group_full': '/create another',
    'not_logged_in': '/login NAME', 'already_logged_in': '/logout first', 'wrong_password': '/login NAME asks again',
    'bad_token': '/login NAME', 'too_many_attempts': 'then /login NAME', 'invalid_name': '/login with another one',
    'registration_closed': 'who runs the server can make an account', 'message_too_long': 'send it in parts',
    'internal_error': 'try again later', 'seq_conflict': 'send it again', 'kicked': '/login NAME again'}
_BLOCKS = {'message': INDENT, 'text': '   '}  # fields whose line breaks are kept on a terminal; before the next lines


def render(event: dict[str, Any], *, me: str, color: bool, multiline: bool,
           title: Callable[[str], str] = lambda group_id: f'#{group_id}') -> str:
    """One event as text for people, without a newline at its end; one that is not known, as it is.  `me`: our own
    userId, '' before the login.  `title` names a group.  `color`: with SGR codes, else without any escape character.
    `multiline`: messages keep their line breaks, lists get a line an item, refusals say what to do next; else an event
    is one line, whatever its senders wrote.  Raises KeyError where an event lacks a field its sentence needs."""
    event, page = _safe(event, multiline), _Page(escape(me), color, multiline, lambda group_id: escape(title(group_id)))
    name = event['event']
    if name in _SENTENCES:
        return page.clock(event) + page.aside(_SENTENCES[name].format_map(page.fields(event)))
    if name in ('message', 'group_message', 'sent'):
        return page.speech(event)
    if name in ('history', 'groups', 'group_created'):
        return getattr(page, name)(event)
    return page.aside('-- ' + ' '.join([name, *(f'{key}={event[key]}' for key in event if key != 'event')]))


def _safe(value: Any, multiline: bool, key: str = '') -> Any:
    """`value` with all strings in it escaped.  Done once, at the gate: no sentence behind can forget it."""
    if isinstance(value, dict):
        return {escape(name): _safe(item, multiline, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_safe(item, multiline) for item in value]
    if isinstance(value, str):
        return escape_block(value, _BLOCKS[key]) if multiline and key in _BLOCKS else escape(value)
    return value


class _Page(NamedTuple):  # how events are put down.  Every string in an event that comes here is safe already
    me: str
    color: bool
    multiline: bool
    title: Callable[[str], str]

    def paint(self, text: str, code: str) -> str: return f'\x1b[{code}m{text}\x1b[0m' if self.color else text
    def aside(self, text: str) -> str: return self.paint(text, RED if text.startswith('!') else DIM)

    def clock(self, event: dict[str, Any], form: str = '%H:%M') -> str:
        """The local time of `sentAt` (milliseconds since 1970) and a blank, or '' without one to show."""
        try:
            moment = time.strftime(form, time.localtime(event['sentAt'] / 1000))
        except (KeyError, TypeError, ValueError, OverflowError, OSError):  # missing, or beyond the calendar
            return ''
        return self.paint(moment, DIM) + ' '

    def user(self, event: dict[str, Any], prefix: str = 'user') -> str:
        """`name (id)`, or one of them where they are the same or the other is missing."""
        user_id, name = event.get(f'{prefix}Id'), event.get(f'{prefix}Name')
        name = name or user_id or '?'
        # Somebody may really be called "you": that must not pass for us.
        return name if user_id in (None, name) and name != 'you' else f'{name} ({user_id})'

    def who(self, event: dict[str, Any], prefix: str = 'user') -> str:
        return 'you' if event.get(f'{prefix}Id') == self.me else self.user(event, prefix)

    def fields(self, event: dict[str, Any]) -> dict[str, Any]:
        """The fields of an event, and what its sentence says of several of them together."""
        people = [self.who(user) + ('' if user.get('online', True) else ' (offline)')
                  for user in event.get('sessionList') or event.get('userList') or []]
        reason, code = str(event.get('reason')), event.get('code')
        advice = _ADVICE.get(code or event['event'])  # for people; a script gets the code, and what was refused
        coded = (f'{code}: ' if code else '') + reason + (f' ({event["command"]})' if 'command' in event else '')
        cause = coded if not self.multiline else f'{reason} -> {advice}' if advice else reason
        group = {'group': self.title(event['groupId'])} if 'groupId' in event else {}
        return event | {'user': self.user(event), 'who': self.who(event), 'people': ', '.join(people) or 'nobody',
                        'cause': cause, 'why': f'{reason}; ' if 'reason' in event else ''} | group

    def speech(self, event: dict[str, Any], form: str = '%H:%M') -> str:
        """What somebody said, with its time; in a group the group comes first.  Who speaks has a color for good."""
        # A `sent` of version 1, which acknowledges nothing, has no `sentAt`: the missing time tells.
        is_own = event.get('event') == 'sent' or event.get('fromUserId') == self.me
        who = 'you' if is_own else self.user(event, 'fromUser')
        group = event.get('groupId') or event.get('toGroupId')
        place = self.paint(self.title(group), DIM) + ' ' if group else ''
        color = BOLD if is_own else NAME_COLORS[zlib.crc32(who.encode()) % len(NAME_COLORS)]
        mark = self.paint(' ✓', DIM) if is_own and self.multiline and {'event', 'sentAt'} <= event.keys() else ''
        who = self.paint(who + (f' -> {event["toUserId"]}' if 'toUserId' in event else ''), color)
        return f'{self.clock(event, form)}{place}{who}: {event["message"]}{mark}'

    def items(self, head: str, items: list[str]) -> str:
        lines = [self.aside(head), *items]
        return '\n  '.join(lines) if self.multiline else f'{lines[0]} {" | ".join(items)}'  # a message may hold one too

    def history(self, event: dict[str, Any]) -> str:
        place = f'of group {self.title(event["groupId"])}' if 'groupId' in event else f'with {event.get("userId", "?")}'
        more = ' (there is more)' if event['more'] else ''
        said = [self.speech(message, '%m-%d %H:%M') for message in event['messages']]
        return self.items(f'-- history {place}{more}:', said or ['nothing'])

    def group(self, event: dict[str, Any]) -> str:
        group_id, title = event.get('groupId', '?'), self.title(event.get('groupId', '?'))
        other = group_id if title != f'#{group_id}' else event.get('groupName')  # by either it can be asked for
        return title + (f' ({other})' if other else '')

    def groups(self, event: dict[str, Any]) -> str:
        groups = [f'{self.group(group)}, members: {group["memberCount"]}' for group in event['groupList']]
        return self.items('-- groups:', groups or ['none'])

    def group_created(self, event: dict[str, Any]) -> str:
        unknown = ', '.join(event.get('unknownUserIdList', []))
        return self.aside(f'-- group {self.group(event)} created with {", ".join(event["userNameList"])}'
                          + (f'; unknown: {unknown}' if unknown else ''))


# 7. The command line .................................................................................
class Parser(argparse.ArgumentParser):  # says what is wrong in one line, and exits with 2
    def error(self, message: object) -> NoReturn: self.exit(2, f'{self.prog}: {message}\n')


def between(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """The type of an option that is a number: `kind`, and from `low` to `high`."""
    def number(text: str) -> Any:  # argparse shows this name: "invalid number value"
        if not low <= (value := kind(text)) <= high:
            raise argparse.ArgumentTypeError(f'{text} is not between {low} and {high}')
        return value
    return number


def ask(parser: Parser, prompt: str, read: Callable[[str], str] = getpass.getpass) -> str:
    """What somebody types, without echo unless `read` is `input`.  Exits where nobody can, and when they give up."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN) if termios else None  # after `fg` the echo would be on
    try:
        if not os.isatty(0):
            os.close(os.open('/dev/tty', os.O_RDWR))  # a pipe may have somebody in front of it
        return read(prompt)
    except OSError:
        parser.error('no password: set IM_PASSWORD, or run it in a terminal')
    except UnicodeError:
        parser.error('the name and the password must be text')
    except (EOFError, KeyboardInterrupt):
        parser.exit(130, '\n')
    finally:
        if termios:
            signal.signal(signal.SIGTSTP, before)
