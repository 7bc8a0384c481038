"""The keyboard and the screen of the chat client: bytes of keys become lines, events become text.

What it does: edits the line being typed, shows what happens above it, and lets nobody's text steer the terminal.
What it leaves to others: reading the bytes, understanding the lines, making the events (imclient.py). It knows
no socket and no packet, waits for nothing and starts no thread. Two ways lead through it, and they meet in the
one row at the bottom of the terminal:

    bytes from standard input                    events (dicts) of the client
              |                                               |
        Terminal.feed                                      render      text that steers nothing
              |                                               |
       LineEditor.feed  --> lines and `Key`s           Terminal.print  folded to the terminal's width
              |             for the client                    |
       LineEditor.view                                        v
              |                          -- carol joined group 1a2b3c4d      lines that stay, and scroll up
              v                          10:32 alice: hi
        > half a line_  <------------    > half a line_                      the row being typed: erased
                                                                             and drawn again below them

Built in five parts, each usable without the next:

 1. `escape`, `width`, `clip`, `fold`: what a stranger's text may do to a screen, and the room it takes;
 2. `LineReader`: lines out of a pipe;
 3. `LineEditor`: lines out of a keyboard, without any input or output of its own;
 4. `PlainTerminal`, `Terminal`: the two around the real thing (`make_terminal` chooses);
 5. `render`: one event as text for people;
 6. `Parser`, `between`, `ask_password`: the command line of a script, of the server's too.

Control sequences are those of ECMA-48 (5th edition, 1991) and, for the keys, of xterm's `ctlseqs`; the
width of characters is that of Unicode's UAX #11.
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
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

try:
    import termios
except ImportError:                 # Windows: `make_terminal` gives a PlainTerminal there
    termios = None

# A message has at most 4,096 characters; 512 more are for the command in front of it. What is cut off here
# was too long for a message anyway: what is left is refused, and never sent as half a message.
LINE_LIMIT = 4096 + 512

# So much of an escape sequence is kept; the longest one we know has four characters.
SEQUENCE_LIMIT = 16

# In front of every row that continues a message. Nothing a sender writes ever begins at the left edge.
INDENT = '    | '

# Unicode's categories of characters that are not seen but do something: controls, format characters (among
# them those that turn the direction of writing), line and paragraph separators, lone surrogates.
STEERING = frozenset({'Cc', 'Cf', 'Zl', 'Zp', 'Cs'})

ERASE_ROW = '\r\x1b[K'              # CR, then ECMA-48 EL: erase from the cursor to the end of the row
BOLD, DIM, RED = '1', '2', '31'     # ECMA-48 SGR, "select graphic rendition"


# ---- 1. text on a screen ----------------------------------------------------------------------------------

def escape(text: str) -> str:
    r"""`text` with each character that could steer a terminal spelt out: `\n`, `\x1b`, `\u202e` and so on.

    A backslash stays as it is, so an escaped ESC and the four characters `\x1b` look the same here. Nothing
    is lost by that but certainty about a character nobody can see; doubling would spoil every `C:\new`.
    The price for `Cf` is paid by emoji glued together with U+200D: they show as their parts, and the glue.
    """
    if text.isprintable():          # the usual case; False for all of STEERING and some more
        return text
    return ''.join(char.encode('unicode_escape').decode('ascii')
                   if unicodedata.category(char) in STEERING else char for char in text)


def escape_block(text: str, indent: str) -> str:
    """`text` escaped, but with its line breaks kept; every line after the first begins with `indent`."""
    return f'\n{indent}'.join(map(escape, text.replace('\r\n', '\n').split('\n')))


def width(text: str) -> int:
    """How many columns `text` takes in a terminal: 2 for what UAX #11 calls wide or fullwidth, 0 for marks.

    Honest simplification: each character counts for itself. Terminals that join a flag, a skin tone or a
    U+FE0F with its neighbour disagree by a column or two; the row is right again at the next redraw.
    """
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.category(char) in ('Mn', 'Me', 'Cf'):    # first: some marks are "wide" too
        return 0
    return 2 if unicodedata.east_asian_width(char) in 'WF' else 1


def clip(text: str, first: int, last: int) -> str:
    """What of `text` is in the columns `first` to `last` - 1; a wide character is never cut in half."""
    shown, column = [], 0
    for char in text:
        end = column + width(char)
        if first < end <= last:     # false for a combining mark at the left edge too: its base is not shown
            shown.append(char if first <= column else ' ')      # ' ': the right half of a wide character
        column = end
    return ''.join(shown)


def fold(line: str, columns: int) -> str:
    """`line` (colours and all) broken into rows of at most `columns`, each but the first begun by INDENT.

    Left to the terminal, a long line goes on at the left edge; with the right number of blanks before it, a
    stranger's text would stand there looking like a line of somebody else.
    """
    rows, used = [''], 0
    for piece in re.findall(r'\x1b\[[0-9;]*m|.', line):
        wide = 0 if piece[0] == '\x1b' else width(piece)
        if used + wide > columns:
            rows.append(INDENT)
            used = len(INDENT)
        rows[-1] += piece
        used += wide
    return '\n'.join(rows)


# ---- 2. lines out of a pipe -------------------------------------------------------------------------------

class Key(enum.Enum):
    """The keys that are no text; a `feed` returns them among the lines, in the order of typing."""
    INTERRUPT = 'Ctrl-C on an empty line'
    END = 'Ctrl-D on an empty line, or the end of the input'


def _utf8_decoder() -> codecs.IncrementalDecoder:
    """It keeps the bytes of an unfinished character for the next call; wrong bytes become U+FFFD."""
    return codecs.getincrementaldecoder('utf-8')(errors='replace')


class LineReader:
    """Lines out of bytes that come in pieces, cut anywhere. For pipes and files: no keys, no editing."""

    def __init__(self) -> None:
        self._decoder = _utf8_decoder()
        self._rest = ''             # the line that has no end yet

    def feed(self, data: bytes) -> list[str | Key]:
        """The lines that `data` completes, without their line breaks, at most LINE_LIMIT characters each."""
        lines = (self._rest + self._decoder.decode(data)).split('\n')
        *lines, self._rest = [line[:LINE_LIMIT] for line in lines]
        return [line.removesuffix('\r') for line in lines]

    def finish(self) -> list[str | Key]:
        """The input is at its end: the last line if it had no line break, and Key.END."""
        last = self._rest + self._decoder.decode(b'', final=True)
        self._rest = ''
        return [last, Key.END] if last else [Key.END]


# ---- 3. lines out of a keyboard ---------------------------------------------------------------------------

# What has begun as an escape sequence and is not at its end yet (ECMA-48, 5.4 and 5.6). Anything else after
# ESC is at its end at once: that is what terminals send for Alt and a key.
_UNFINISHED = re.compile(r'''\x1b (
      [O\[] [0-?]* [ -/]*           # SS3 or CSI, parameters, intermediate characters
    | \[\[                          # the Linux console's F1 to F5, which are ESC [ [ A and so on
    | [PX\]^_] .*                   # a string (DCS, SOS, OSC, PM, APC): goes on up to a control character
)?''', re.VERBOSE)


class LineEditor:
    """One line being typed: bytes of keys in, finished lines out; no input or output of its own.

    `text` is what is typed so far and `cursor` a place in it, counted in code points. Where `hidden`, `view`
    shows only the `prompt` (a password is typed).
    """

    def __init__(self, prompt: str = '', hidden: bool = False) -> None:
        self.prompt = prompt
        self.hidden = hidden
        self.text = ''
        self.cursor = 0
        self._decoder = _utf8_decoder()
        self._sequence = ''         # the escape sequence we are in, so far
        self._last = ''             # the character before

    def feed(self, data: bytes) -> list[str | Key]:
        """Press the keys that `data` (UTF-8, cut anywhere) stands for; return what they finished."""
        results = [self._press(char) for char in self._decoder.decode(data)]
        return [result for result in results if result is not None]

    def finish(self) -> list[str | Key]:
        """The keyboard is gone: Key.END. A line that is half typed was never entered, and is no result."""
        return [Key.END]

    def _press(self, char: str) -> str | Key | None:
        last, self._last = self._last, char
        if last + char == '\r\n':               # one line break, not two
            return None
        if char < ' ' or char == '\x7f':        # ends what a lone Esc began: no timer tells it apart
            self._sequence = ''
        key = self._sequence + char
        if _UNFINISHED.fullmatch(key):
            self._sequence = key[:SEQUENCE_LIMIT]
            return None
        self._sequence = ''
        return self._act(key)

    def _act(self, key: str) -> str | Key | None:
        if key in self._MOVES:
            self.cursor = self._MOVES[key](self)
        elif key == '\x04' and not self.text:   # Ctrl-D; with text it is one of the cuts
            return Key.END
        elif key in self._CUTS:
            self._cut(self._CUTS[key](self))
        elif key in ('\r', '\n'):
            return self.clear()
        elif key == '\x03':                     # Ctrl-C
            return None if self.clear() else Key.INTERRUPT
        elif len(key) == 1:                     # longer: an escape sequence that means nothing to us
            self._insert(' ' if key == '\t' else key)
        return None

    def view(self, columns: int) -> tuple[str, int]:
        """What to show in a row of `columns`, and the cursor's column in it, from 0.

        Honest simplification: one row, ever. A line that does not fit slides under it in steps of half a
        row, which follow from the cursor alone: drawing again needs no memory of the last time.
        """
        prompt, text = escape(self.prompt), '' if self.hidden else self.text
        cursor = width(prompt + text[:self.cursor])
        room = max(columns - 1, 2)              # the cursor behind the last character needs a column too
        half = room // 2
        first = max(cursor // half - 1, 0) * half
        # Format characters are sent but not shown: they take no column, and cannot turn the row around.
        text = ''.join(char for char in text if unicodedata.category(char) != 'Cf')
        return clip(prompt + text, first, first + room), cursor - first

    def clear(self) -> str:
        """Begin an empty line; return what was typed."""
        text, self.text, self.cursor = self.text, '', 0
        return text

    def _insert(self, char: str) -> None:
        if len(self.text) < LINE_LIMIT and unicodedata.category(char) not in ('Cc', 'Zl', 'Zp'):
            self.text = self.text[:self.cursor] + char + self.text[self.cursor:]
            self.cursor += 1

    def _cut(self, place: int) -> None:
        start, end = sorted((self.cursor, place))
        self.text, self.cursor = self.text[:start] + self.text[end:], start

    # Places in the text, seen from the cursor. A key moves there, or cuts all between there and the cursor.

    def _left(self) -> int:
        place = max(self.cursor - 1, 0)
        while place > 0 and width(self.text[place]) == 0:       # a combining character stays with its base
            place -= 1
        return place

    def _right(self) -> int:
        place = min(self.cursor + 1, len(self.text))
        while place < len(self.text) and width(self.text[place]) == 0:
            place += 1
        return place

    def _start(self) -> int:
        return 0

    def _end(self) -> int:
        return len(self.text)

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


# ---- 4. the terminal --------------------------------------------------------------------------------------

class PlainTerminal:
    """Lines in and lines out, for everything that is no terminal we can steer: pipes, files, Windows.

    `output` is a buffered binary stream such as `sys.stdout.buffer`; we write UTF-8, as we read it.
    """

    prompt = ''                     # kept, never shown

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._reader: LineReader | LineEditor = LineReader()

    def __enter__(self) -> PlainTerminal:
        self.open()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def open(self) -> None:
        """Nothing to prepare here."""

    def close(self) -> None:
        """Nothing to put back here."""

    def feed(self, data: bytes) -> list[str | Key]:
        """Take what was read from standard input; return the lines and keys that it finished."""
        return self._reader.feed(data)

    def finish(self) -> list[str | Key]:
        """Standard input is at its end (a read gave b''): return what is left, and Key.END."""
        return self._reader.finish()

    def print(self, text: str) -> None:
        """Write one or more lines. `text` must be safe to show (see `escape`) and ends without a newline."""
        self._write(f'{text}\n')

    def ask(self, prompt: str, secret: bool = False) -> None:
        """Put a question that the next line answers; its text is seen only where somebody can see it.

        `secret` is beyond a plain terminal: the answer shows while it is typed.
        """
        if self._output.isatty():
            self.print(escape(prompt))

    def redraw(self) -> None:
        """Nothing to draw again here."""

    def _write(self, text: str) -> None:
        # Waits while the terminal does not take the bytes: somebody selecting text stops the whole client.
        self._output.write(text.encode('utf-8', errors='backslashreplace'))
        self._output.flush()


class Terminal(PlainTerminal):
    """A terminal whose last row belongs to the line being typed; all that is printed goes above it.

    `keyboard` is the file descriptor of standard input, a terminal; `columns` tells how wide the screen is
    now. The row is drawn between `open` and `close` only; before and after, `print` just writes lines.
    A line that was entered is erased, not left in the scrollback: in a chat the event it leads to is what
    stays, and both would say everything twice.
    """

    def __init__(self, output: BinaryIO, keyboard: int,
                 columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns) -> None:
        super().__init__(output)
        self.editor = self._reader = LineEditor()
        self._keyboard = keyboard
        self._columns = columns
        self._saved: list[Any] | None = None    # the terminal's settings while it is ours

    def open(self) -> None:
        """Take every key as it comes, unseen and without a meaning of its own. Twice is once.

        Raises termios.error where `keyboard` is no terminal.
        """
        if self._saved is not None:
            return
        self._saved = termios.tcgetattr(self._keyboard)
        iflag, oflag, cflag, lflag, ispeed, ospeed, chars = termios.tcgetattr(self._keyboard)
        # ECHO, ICANON: the editor's work. ISIG: Ctrl-C is a key. IEXTEN: so is Ctrl-V. IXON: so is Ctrl-S.
        # ICRNL: a pasted \r\n stays one line break. OPOST, in oflag, stays on: \n goes to the left edge.
        lflag &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        iflag &= ~(termios.IXON | termios.ICRNL)
        chars[termios.VMIN], chars[termios.VTIME] = 1, 0
        settings = [iflag, oflag, cflag, lflag, ispeed, ospeed, chars]
        termios.tcsetattr(self._keyboard, termios.TCSANOW, settings)    # NOW: keeps the keys typed before
        self.redraw()

    def close(self) -> None:
        """Erase the row and put the terminal back as it was. Twice is once, and it never raises."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        with contextlib.suppress(termios.error, OSError, ValueError):   # gone: nobody is left to see it
            termios.tcsetattr(self._keyboard, termios.TCSANOW, saved)
            self._write(ERASE_ROW)

    def feed(self, data: bytes) -> list[str | Key]:
        results = super().feed(data)
        self.redraw()
        return results

    def print(self, text: str) -> None:
        columns = self._columns()
        rows = '\n'.join(fold(line, columns) for line in text.split('\n'))
        self._write(f'{ERASE_ROW}{rows}\n{self._row()}' if self._saved else f'{rows}\n')

    def ask(self, prompt: str, secret: bool = False) -> None:
        """The next line answers `prompt`; nothing of it shows if `secret`. `ask` again ends the secret."""
        if secret != self.editor.hidden:
            self.editor.clear()                 # half a password must not show under the next prompt
        self.editor.hidden = secret
        self.prompt = prompt

    @property
    def prompt(self) -> str:
        """Plain text in front of the line; setting it draws the row again."""
        return self.editor.prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self.editor.prompt = prompt
        self.redraw()

    def redraw(self) -> None:
        """Draw the row again, for example after the terminal's size has changed."""
        if self._saved:
            self._write(ERASE_ROW + self._row())

    def _row(self) -> str:
        row, cursor = self.editor.view(self._columns())
        return f'{row}\x1b[{cursor + 1}G'       # ECMA-48 CHA: to that column, counted from 1


def make_terminal(output: BinaryIO, keyboard: int) -> PlainTerminal:
    """A Terminal where both ends are one that understands control sequences, else a PlainTerminal."""
    if termios and os.isatty(keyboard) and output.isatty() and os.environ.get('TERM') != 'dumb':
        return Terminal(output, keyboard)
    return PlainTerminal(output)


# ---- 5. events as text ------------------------------------------------------------------------------------

# The events that are one sentence. {user}, {who}, {people} and {cause} are made by `_Page.fields`.
_SENTENCES = {
    'connected': '-- connected to {host} port {port}',
    'disconnected': '-- disconnected: {reason}',
    'reconnecting': '-- {why}connecting again in {delay:.1f} s',
    'login': '-- logged in as {user}, protocol version {version}',
    'login_failed': '! login failed: {cause}',
    'logged_out': '-- logged out',
    'kicked': '! the server ended this session: {cause}',
    'error': '! {cause}',
    'joined': '-- you joined group {groupId}',
    'left': '-- you left group {groupId}',
    'notice': '-- {who} {action} group {groupId}',
    'members': '-- group {groupId} has {people}',
    'users': '-- users: {people}',
    'info': '-- {text}',
}

# The fields whose line breaks are kept on a terminal, and what begins the lines after the first.
_BLOCKS = {'message': INDENT, 'text': '   '}


def render(event: dict[str, Any], *, me: str, color: bool, multiline: bool) -> str:
    """One event as text for people, without a newline at its end.

    `event['event']` is its name, `me` our own userId ('' before the login). With `color` there are SGR codes
    in the text, without it no escape character at all. With `multiline` messages keep their line breaks, and
    history and groups get a line an item; without it an event is one line, whatever its senders wrote.
    Raises KeyError where an event lacks a field its sentence needs; an unknown event is shown as it is.
    """
    event = _safe(event, multiline)
    page = _Page(escape(me), color, multiline)
    name = event['event']
    if name in _SENTENCES:
        return page.clock(event) + page.aside(_SENTENCES[name].format_map(page.fields(event)))
    if name in ('message', 'group_message', 'sent'):
        return page.speech(event)
    if name in ('history', 'groups', 'group_created'):
        return getattr(page, name)(event)
    return page.aside('-- ' + ' '.join([name, *(f'{key}={event[key]}' for key in event if key != 'event')]))


def _safe(value: Any, multiline: bool, key: str = '') -> Any:
    """`value` with all strings in it escaped. Done once, at the gate: no sentence behind can forget it."""
    if isinstance(value, dict):
        return {escape(name): _safe(item, multiline, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_safe(item, multiline) for item in value]
    if isinstance(value, str):
        return escape_block(value, _BLOCKS[key]) if multiline and key in _BLOCKS else escape(value)
    return value


@dataclass(frozen=True)
class _Page:
    """How events are put down. Every string in an event that comes here is safe already."""
    me: str
    color: bool
    multiline: bool

    def paint(self, text: str, code: str) -> str:
        return f'\x1b[{code}m{text}\x1b[0m' if self.color else text

    def aside(self, text: str) -> str:
        return self.paint(text, RED if text.startswith('!') else DIM)

    def clock(self, event: dict[str, Any], form: str = '%H:%M') -> str:
        """The local time of `sentAt` (milliseconds since 1970) and a blank, or '' without one to show."""
        try:
            moment = time.strftime(form, time.localtime(event['sentAt'] / 1000))
        except (KeyError, TypeError, ValueError, OverflowError, OSError):   # missing, or beyond the calendar
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
        code = f'{event["code"]}: ' if 'code' in event else ''
        command = f' ({event["command"]})' if 'command' in event else ''
        return event | {'user': self.user(event), 'who': self.who(event),
                        'people': ', '.join(people) or 'nobody',
                        'cause': f'{code}{event.get("reason")}{command}',
                        'why': f'{event["reason"]}; ' if 'reason' in event else ''}

    def speech(self, event: dict[str, Any], form: str = '%H:%M') -> str:
        """What somebody said, with its time; in a group the group comes first."""
        # A `sent` of version 1, which acknowledges nothing, has no `sentAt`: the missing time tells.
        who = self.who(event, 'fromUser') if event.get('event') != 'sent' else 'you'
        group = event.get('groupId') or event.get('toGroupId')
        place = f'[g {group}] ' if group else ''
        if 'toUserId' in event:
            who += f' -> {event["toUserId"]}'
        return f'{self.clock(event, form)}{place}{self.paint(who, BOLD)}: {event["message"]}'

    def items(self, head: str, items: list[str]) -> str:
        if self.multiline:
            return '\n  '.join([self.aside(head), *items])
        return f'{self.aside(head)} {" | ".join(items)}'    # a message may hold a " | " too

    def history(self, event: dict[str, Any]) -> str:
        place = f'of group {event["groupId"]}' if 'groupId' in event else f'with {event.get("userId", "?")}'
        more = ' (there is more)' if event['more'] else ''
        said = [self.speech(message, '%m-%d %H:%M') for message in event['messages']]
        return self.items(f'-- history {place}{more}:', said or ['nothing'])

    def group(self, event: dict[str, Any]) -> str:
        return event.get('groupId', '?') + (f' ({event["groupName"]})' if 'groupName' in event else '')

    def groups(self, event: dict[str, Any]) -> str:
        groups = [f'{self.group(group)}, members: {group["memberCount"]}' for group in event['groupList']]
        return self.items('-- groups:', groups or ['none'])

    def group_created(self, event: dict[str, Any]) -> str:
        unknown = ', '.join(event.get('unknownUserIdList', []))
        return self.aside(f'-- group {self.group(event)} created with {", ".join(event["userNameList"])}'
                          + (f'; unknown: {unknown}' if unknown else ''))


# 6. The command line .................................................................................
class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""
    def error(self, message: object) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}\n')


def between(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """The type of an option that is a number: `kind`, and from `low` to `high`."""
    def number(text: str) -> Any:  # argparse shows this name: "invalid number value"
        if not low <= (value := kind(text)) <= high:
            raise argparse.ArgumentTypeError(f'{text} is not between {low} and {high}')
        return value
    return number


def ask_password(parser: Parser, prompt: str) -> str:
    """IM_PASSWORD, or what is typed, without echo.  Exits where nobody can be asked, and when they give up."""
    if (password := os.environ.get('IM_PASSWORD')) is None and not os.isatty(0):
        parser.error('no password: set IM_PASSWORD, or run it in a terminal')
    try:
        return getpass.getpass(prompt) if password is None else password
    except (EOFError, KeyboardInterrupt):
        parser.exit(130)
