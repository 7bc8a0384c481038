"""The terminal's side of the client: escaping, keys, drawing (on a pseudo-terminal), events as text."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import select
import sys
import time
import unicodedata

import pytest

import console
from console import INDENT, Key, LINE_LIMIT, LineEditor, LineReader, PlainTerminal, Terminal
from console import (
    Chats, clip, escape, escape_block, fold, keep_line, load_history, make_terminal, render, width)

ESC = '\x1b'


# ---- text on a screen -------------------------------------------------------------------------------------

HOSTILE = {
    'clear the screen': ('\x1b[2J', r'\x1b[2J'),
    'OSC 0, the title': ('\x1b]0;owned\x07', r'\x1b]0;owned\x07'),
    'OSC 52, the clipboard': ('\x1b]52;c;cm0gLXJm\x1b\\', '\\x1b]52;c;cm0gLXJm\\x1b\\'),
    'bell': ('\x07', r'\x07'),
    'backspace': ('ab\x08\x08', r'ab\x08\x08'),
    'nul': ('\x00', r'\x00'),
    'delete': ('\x7f', r'\x7f'),
    'C1 CSI': ('\x9b2J', r'\x9b2J'),
    'C1 next line': ('\x85', r'\x85'),
    'short forms': ('a\r\n\tb', r'a\r\n\tb'),
    'right-to-left override': ('\u202etxt.exe', r'\u202etxt.exe'),
    'isolate': ('\u2066', r'\u2066'),
    'line separator': ('\u2028', r'\u2028'),
    'paragraph separator': ('\u2029', r'\u2029'),
    'zero width space': ('a\u200bb', r'a\u200bb'),
    'soft hyphen': ('\xad', r'\xad'),
    'byte order mark': ('\ufeff', r'\ufeff'),
    'language tag': ('\U000e0001', r'\U000e0001'),
    'lone surrogate': ('\ud800', r'\ud800'),
    'lone low surrogate': ('\udcff', r'\udcff'),
}


@pytest.mark.parametrize('text, shown', HOSTILE.values(), ids=HOSTILE)
def test_escape_shows_what_could_steer(text, shown):
    assert escape(text) == shown


@pytest.mark.parametrize('text', ['', 'hello', 'a b', '世界', 'é', 'e\u0301', '\U0001f600', 'a\xa0b',
                                  '\u3000', r'C:\new\x1b', '\u05e9\u05dc\u05d5\u05dd', '\ue000', '❤\ufe0f'])
def test_escape_leaves_ordinary_text_alone(text):
    assert escape(text) == text


def test_escape_by_category_over_all_of_unicode():
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        steers = unicodedata.category(char) in ('Cc', 'Cf', 'Zl', 'Zp', 'Cs') and char not in '\u200c\u200d'
        shown = escape(char)
        assert shown.startswith('\\') and shown.isprintable() if steers else shown == char, hex(code)


def test_escape_block_marks_every_continuation():
    assert escape_block('one\ntwo\r\nthree\rfour\n', '| ') == 'one\n| two\n| three\\rfour\n| '
    assert escape_block('one\x1b\n\x9b', '| ') == 'one\\x1b\n| \\x9b'
    assert escape_block('one', '| ') == 'one'


@pytest.mark.parametrize('text, columns', [
    ('', 0), ('abc', 3), ('世界', 4), ('Ａ', 2), ('\U0001f600', 2), ('e\u0301', 1), ('a\u20ddb', 2),
    ('\u200b', 0), ('é', 1), ('ｱ', 1), ('か\u3099', 2), ('\U0001f469\u200d\U0001f4bb', 4),
])
def test_width(text, columns):
    assert width(text) == columns


@pytest.mark.parametrize('first, last, shown', [
    (0, 8, 'a世b界e\u0301'), (0, 2, 'a'), (0, 3, 'a世'), (1, 4, '世b'), (2, 4, ' b'), (3, 5, 'b'),
    (5, 7, ' e\u0301'), (7, 9, ''), (0, 0, ''),
])
def test_clip_never_cuts_a_character_in_half(first, last, shown):
    assert clip('a世b界e\u0301', first, last) == shown
    assert width(shown) <= last - first


def test_fold():
    assert fold('short', 20) == 'short'
    assert fold('', 20) == ''
    assert fold('x' * 20, 20) == 'x' * 20
    assert fold('x' * 21, 20) == 'x' * 20 + '\n' + INDENT + 'x'
    assert fold('x' * 40, 20).split('\n') == ['x' * 20, INDENT + 'x' * 14, INDENT + 'x' * 6]
    assert fold('世' * 11, 21).split('\n') == ['世' * 10, INDENT + '世']
    assert fold('x' * 19 + 'e\u0301', 20) == 'x' * 19 + 'e\u0301'


def test_fold_begins_no_row_with_the_blank_at_which_it_broke():
    assert fold('x' * 20 + ' y z', 20).split('\n') == ['x' * 20, INDENT + 'y z']
    assert fold('x' * 18 + '    y' + 'z' * 12 + ' w', 20).split('\n') == [
        'x' * 18 + '  ', INDENT + ' y' + 'z' * 12, INDENT + 'w']


def test_fold_counts_no_column_for_colours():
    assert fold('\x1b[1malice\x1b[0m: hi, bob', 14) == '\x1b[1malice\x1b[0m: hi, bob'


def test_fold_ends_on_a_terminal_narrower_than_its_indent():
    assert fold('abc', 1).replace(INDENT, '').replace('\n', '') == 'abc'


def test_blanks_forge_no_line_by_wrapping():
    row = '10:33 bob: send me money'
    text = 'alice: hi'.ljust(40) + row
    assert row not in fold(text, 40).split('\n')
    assert fold(text, 40).split('\n')[1] == INDENT + row


# ---- lines out of a pipe ----------------------------------------------------------------------------------

def everything(reader, data, size):
    """What `reader` makes of `data` in pieces of `size` bytes, with what it has at the end."""
    results = []
    for start in range(0, len(data), size):
        results += reader.feed(data[start:start + size])
    return results + reader.finish()


@pytest.mark.parametrize('size', [1, 2, 3, 10000])
@pytest.mark.parametrize('data, lines', [
    (b'', []),
    (b'one\ntwo\n', ['one', 'two']),
    (b'one\r\n\r\ntwo', ['one', '', 'two']),
    ('世界\né'.encode(), ['世界', 'é']),
    (b'\xff\xe4\xb8\n', ['\ufffd\ufffd']),
    (b'half \xe4\xb8', ['half \ufffd']),
    (b'x' * (LINE_LIMIT + 5) + b'\r\nnext\n', ['x' * LINE_LIMIT, 'next']),
    (b'x' * LINE_LIMIT + b'\r\nnext\n', ['x' * LINE_LIMIT, 'next']),
], ids=range(8))
def test_line_reader(data, lines, size):
    assert everything(LineReader(), data, size) == lines + [Key.END]


def test_line_reader_keeps_a_bounded_rest():
    reader = LineReader()
    for _ in range(10):
        reader.feed(b'x' * LINE_LIMIT)
    assert reader.finish() == ['x' * LINE_LIMIT, Key.END]
    assert reader.finish() == [Key.END]


# ---- the line editor --------------------------------------------------------------------------------------

def edited(keys: str, editor: LineEditor | None = None) -> str:
    """The text after `keys`, with `_` at the cursor."""
    editor = editor or LineEditor()
    assert editor.feed(keys.encode()) == []
    assert 0 <= editor.cursor <= len(editor.text)
    return editor.text[:editor.cursor] + '_' + editor.text[editor.cursor:]


LEFT, RIGHT, HOME, END, DELETE = ESC + '[D', ESC + '[C', ESC + '[H', ESC + '[F', ESC + '[3~'


@pytest.mark.parametrize('keys, text', [
    ('abc', 'abc_'),
    ('a世\U0001f600', 'a世\U0001f600_'),
    ('ac' + LEFT + 'b', 'ab_c'),
    ('ac' + ESC + 'ODb', 'ab_c'),
    ('ac\x02b', 'ab_c'),
    (LEFT + 'a', 'a_'),
    ('ab' + LEFT * 2 + RIGHT + 'x', 'ax_b'),
    ('ab' + LEFT * 2 + ESC + 'OCx', 'ax_b'),
    ('ab' + LEFT * 2 + '\x06x', 'ax_b'),
    ('ab' + RIGHT + 'c', 'abc_'),
    *(('bc' + home + 'a', 'a_bc') for home in (HOME, ESC + 'OH', ESC + '[1~', '\x01')),
    *(('ab\x01' + end + 'c', 'abc_') for end in (END, ESC + 'OF', ESC + '[4~', '\x05')),
    ('abc\x7f', 'ab_'),
    ('abc\x08', 'ab_'),
    ('abc' + LEFT + '\x7f', 'a_c'),
    ('\x7fa', 'a_'),
    ('abc' + HOME + DELETE, '_bc'),
    ('abc' + DELETE, 'abc_'),
    ('abc' + HOME + '\x04', '_bc'),
    ('abc\x04', 'abc_'),
    ('abcd' + LEFT * 2 + '\x15', '_cd'),
    ('abcd' + LEFT * 2 + '\x0b', 'ab_'),
    ('one two\x17', 'one _'),
    ('one two   \x17', 'one _'),
    ('one two three' + LEFT * 6 + '\x17', 'one _ three'),
    ('one\x17', '_'),
    ('   \x17', '_'),
    ('\x17', '_'),
    ('abc\x03', '_'),
    ('a\tb\t\tc', 'a b  c_'),  # pasted
    ('\t', '_'),
    ('a\x00\x07\x0c\x0e\x1fb', 'ab_'),
    ('a\x80\x9b\u2028\u2029b', 'ab_'),
])
def test_keys(keys, text):
    assert edited(keys) == text


@pytest.mark.parametrize('sequence', [
    '[A', '[B', 'OA', 'OP', 'O5P', 'O1;2P', '[15~', '[2~', '[5~', '[1;5C', '[200~', '[201~', '[Z',
    '[[A', '[[E', '[?1;2c', '[>0;276;0c', '[24;80R', '[1 q', '[!p', '[I', 'b', 'f', 'd', '.', '(',
    ']0;title\x07', ']11;rgb:0000/0000/0000\x1b\\', 'P1+r544e=787465726d\x1b\\', '_Gi=1;OK\x1b\\',
    'Xsos\x1b\\', '^pm\x1b\\', '[' + '1' * 1000 + 'H', '[' + '1' * 14 + 'H', ']' + 'x' * 1000 + '\x07', 'é',
    '[é',
])
def test_unknown_sequences_are_swallowed_whole(sequence):
    assert edited('a' + ESC + sequence + 'z' + LEFT + 'b') == 'ab_z'


def test_an_endless_sequence_takes_no_room():
    editor = LineEditor()
    for begun in ('[' + '1' * 1000, '\x1b]' + 'x' * 1000):
        assert edited(ESC + begun, editor) == '_'
        assert len(editor._sequence) == console.SEQUENCE_LIMIT


@pytest.mark.parametrize('begun', ['', '[', 'O', '[1;', ']0;title', '[['])
def test_a_control_key_ends_a_sequence_that_never_ended(begun):
    editor = LineEditor()
    assert editor.feed(f'hi{ESC}{begun}\r'.encode()) == ['hi']
    assert editor.feed(f'ab{ESC}{begun}\x7f'.encode()) == []
    assert editor.text == 'a'
    assert editor.feed(f'{ESC}{begun}\x03{ESC}{begun}\x03'.encode()) == [Key.EMPTY]
    assert edited('xy' + ESC + begun + LEFT + 'z', editor) == 'xz_y'


def test_enter_in_its_three_spellings():
    assert LineEditor().feed(b'a\rb\nc\r\nd\n\re\r\r\n\n') == ['a', 'b', 'c', 'd', '', 'e', '', '']


def test_enter_takes_the_whole_line_wherever_the_cursor_is():
    editor = LineEditor()
    assert editor.feed(b'hello' + LEFT.encode() * 3 + b'\r') == ['hello']
    assert (editor.text, editor.cursor) == ('', 0)


def test_pasted_text_is_several_lines():
    editor = LineEditor()
    assert editor.feed(b'one\rtwo\rthr') == ['one', 'two']
    assert editor.text == 'thr'


def test_special_keys_come_among_the_lines_in_order():
    assert LineEditor().feed(b'\x03a\r\x04b\x03\x03c\x04\r\x1a') == [
        Key.EMPTY, 'a', Key.END, Key.INTERRUPT, 'c', Key.SUSPEND]


def test_ctrl_c_clears_and_twice_leaves():
    editor = LineEditor()
    assert editor.feed(b'half a line\x03') == [] and editor.text == ''
    assert editor.feed(b'\x03') == [Key.INTERRUPT]
    assert editor.feed(b'a\x03b\x03c\r\x03') == ['c', Key.EMPTY]
    assert LineEditor('Password: ', hidden=True).feed(b'half\x03') == [Key.EMPTY]
    assert editor.feed(b'\x03') == [Key.INTERRUPT]


# ---- lines entered before, and words begun ----------------------------------------------------------------

UP, DOWN = ESC + '[A', ESC + '[B'


def test_lines_entered_before_come_back():
    editor = LineEditor()
    editor.feed(b'one\rtwo\r\r  \rtwo\rhalf')
    assert editor.history == ['one', 'two']
    for keys, text in (UP, 'two_'), (UP, 'one_'), (UP, 'one_'), (DOWN, 'two_'), (DOWN, 'half_'), (DOWN, 'half_'):
        assert edited(keys, editor) == text
    assert editor.feed(f'{UP}{UP}!\r'.encode()) == ['one!']
    assert editor.history == ['one', 'two', 'one!'] and edited(UP, editor) == 'one!_'
    assert edited('\x10\x0e\x0e' + ESC + 'OA', editor) == 'one!_'      # Ctrl-P, Ctrl-N, application mode


def test_the_history_holds_so_many_lines_and_no_more():
    editor = LineEditor()
    editor.feed(''.join(f'line {n}\r' for n in range(console.TYPED_LIMIT)).encode())
    assert (len(editor.history), editor.history[0]) == (console.TYPED_LIMIT, 'line 0')
    editor.feed(b'one more\r')
    assert (len(editor.history), editor.history[0]) == (console.TYPED_LIMIT, 'line 1')


def test_what_is_hidden_is_not_remembered_and_nothing_comes_back_there():
    editor = LineEditor('Password: ', hidden=True)
    editor.history = ['/users']
    assert editor.feed(f's3cret{UP}\t\r'.encode()) == ['s3cret']
    assert editor.history == ['/users']


def test_tab_completes_the_last_word():
    editor, asked = LineEditor(), []
    words = {'/ms': ['/msg'], '/msg a': ['alice', 'anna'], '/msg x': [], '/h': ['/help', '/history']}
    editor.complete = lambda text: asked.append(text) or words.get(text, [])
    assert edited('/ms\t', editor) == '/msg _'
    assert edited('a\t', editor) == '/msg alice_'
    assert edited('\t', editor) == '/msg anna_'
    assert edited('\t', editor) == '/msg a_'
    assert edited('\t\t', editor) == '/msg anna_'
    assert edited(' hi\t', editor) == '/msg anna hi_' and asked[-1] == '/msg anna hi'
    editor.clear()
    assert edited('/msg x\t\t', editor) == '/msg x_'
    editor.clear()
    assert edited('/h there' + LEFT * 6 + '\t\t', editor) == '/history_ there'


def test_a_history_across_runs(tmp_path):
    path = tmp_path / 'state' / 'im' / 'history'
    assert load_history(path) == []
    for line in '/users', '你好 😀', 'lone \ud800':
        keep_line(path, line)
    assert load_history(path) == ['/users', '你好 😀', 'lone ?']
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text('more\n' * 2 * console.TYPED_LIMIT, encoding='utf-8')
    assert len(load_history(path)) == console.TYPED_LIMIT
    assert len(path.read_text(encoding='utf-8').splitlines()) == 2_000
    keep_line(path, 'one over')
    assert load_history(path)[-1] == 'one over'
    assert len(path.read_text(encoding='utf-8').splitlines()) == console.TYPED_LIMIT


def test_a_history_that_cannot_be_kept_disturbs_nobody(tmp_path):
    (tmp_path / 'file').write_text('no folder', encoding='utf-8')
    keep_line(tmp_path / 'file' / 'history', 'x')
    assert load_history(tmp_path / 'file' / 'history') == [] == load_history(tmp_path)


def test_an_overlong_line_ignores_more_keys_but_not_the_others():
    editor = LineEditor()
    editor.feed(b'x' * (LINE_LIMIT + 10))
    assert len(editor.text) == editor.cursor == LINE_LIMIT
    editor.feed(b'y')
    assert editor.text == 'x' * LINE_LIMIT
    editor.feed(b'\x7fy')
    assert editor.text == 'x' * (LINE_LIMIT - 1) + 'y'
    assert editor.feed(b'zz\r') == ['x' * (LINE_LIMIT - 1) + 'y']


@pytest.mark.parametrize('keys, text', [
    ('xe\u0301\x7f', 'x_'),
    ('xe\u0301\u0323\x7f', 'x_'),
    ('xe\u0301' + LEFT + 'a', 'xa_e\u0301'),
    ('e\u0301y' + HOME + RIGHT + 'a', 'e\u0301a_y'),
    ('e\u0301\u0323y' + HOME + DELETE, '_y'),
    ('xe\u0301' + LEFT + DELETE, 'x_'),
    ('\u0301' + LEFT + 'e', 'e_\u0301'),
    ('\u0301\x7f', '_'),
    ('世e\u0301\x17', '_'),
    ('\U0001f469\u200d\U0001f4bb' + LEFT * 2 + 'a', 'a_\U0001f469\u200d\U0001f4bb'),
])
def test_combining_characters_go_with_their_base(keys, text):
    assert edited(keys) == text


SESSIONS = [
    b'hello\rworld\n',
    'h\xe9llo 世界 \U0001f600\r'.encode(),
    b'abc\x1b[D\x1b[D\x1bOCx\x1b[3~\x1b[1~<\x1b[4~>\r',
    b'one two\x17\x15three\x01\x0bfour\r\n\r\nfive\r',
    b'\x03\x04ab\x03c\x04\x01\x04\x03\x04',
    b'\xff\xc3\x28 \xe4\xb8\r\xf0\x9f\x98 \xed\xa0\x80 \xc0\x80 \xf5 \xe4\xb8',
    b'a\x1b[1;5Cb\x1b[200~paste\x1b[201~c\x1b]0;t\x07d\x1bOPe\x1b[[Af\x1b\x1b[Dg\r',
    b'lone escape\x1b\rnext\x1b\x03\x1b[\r\x1b',
    'e\u0301\u0323x\x1b[D\x7f\u200d\U0001f469\u200d\U0001f4bb\x08'.encode(),
    b'\x1b[' + b'1' * 40 + b'C\x1bP' + b'q' * 40 + b'\x1b\\end\r',
]


@pytest.mark.parametrize('session', SESSIONS, ids=range(len(SESSIONS)))
def test_a_session_byte_by_byte_gives_the_same(session):
    whole, bytewise = LineEditor('> '), LineEditor('> ')
    results = whole.feed(session)
    assert results == [result for byte in session for result in bytewise.feed(bytes([byte]))]
    assert (whole.text, whole.cursor, whole.view(20)) == (bytewise.text, bytewise.cursor, bytewise.view(20))
    for cut in range(len(session)):
        pieces = LineEditor('> ')
        assert pieces.feed(session[:cut]) + pieces.feed(session[cut:]) == results


def test_invalid_bytes_become_replacement_characters():
    editor = LineEditor()
    assert editor.feed(b'a\xffb\xe4\xb8') == []
    assert editor.text == 'a\ufffdb'                        # the rest may still become a character
    assert editor.feed(b'\r') == ['a\ufffdb\ufffd']


# ---- what the editor shows --------------------------------------------------------------------------------

def viewed(keys, columns=40, prompt='> ', hidden=False):
    editor = LineEditor(prompt, hidden)
    editor.feed(keys.encode())
    return editor.view(columns)


@pytest.mark.parametrize('keys, row, cursor', [
    ('', '> ', 2),
    ('hello', '> hello', 7),
    ('hello' + LEFT * 2, '> hello', 5),
    ('世界', '> 世界', 6),
    ('世界' + LEFT, '> 世界', 4),
    ('e\u0301x', '> e\u0301x', 4),
    ('e\u0301x' + LEFT * 2, '> e\u0301x', 2),
    ('\U0001f600!', '> \U0001f600!', 5),
    ('\U0001f469\u200d\U0001f4bb' + 'x', '> \U0001f469\U0001f4bbx', 7),    # the glue is not shown
    ('a\u202eb', '> ab', 4),
    ('x' * 35, '> ' + 'x' * 35, 37),
    ('x' * 36, 'x' * 19, 19),                               # 38 columns: half of 39, twice; one step on
    ('x' * 36 + LEFT, '> ' + 'x' * 36, 37),
    ('x' * 55, 'x' * 19, 19),                               # two steps on
    ('x' * 55 + LEFT, 'x' * 38, 37),
    ('x' * 55 + HOME, '> ' + 'x' * 37, 2),
    ('世' * 17, '> ' + '世' * 17, 36),
    ('世' * 18, ' ' + '世' * 9, 19),                          # the step falls into a wide character
    ('世' * 30, '世' * 12, 24),
    ('世' * 30 + LEFT * 12, ' ' + '世' * 19, 19),
    ('世' * 30 + HOME, '> ' + '世' * 18, 2),                  # a 19th would be cut in half
])
def test_view_at_40_columns(keys, row, cursor):
    assert viewed(keys) == (row, cursor)


@pytest.mark.parametrize('unit', ['x', '世', 'e\u0301', 'a世', '\U0001f600b'])
@pytest.mark.parametrize('columns', [10, 39, 40, 41])
def test_the_cursor_is_always_seen_at_its_character(unit, columns):
    editor = LineEditor('you> ')
    editor.feed((unit * 60).encode())
    while True:
        row, cursor = editor.view(columns)
        assert 0 <= cursor < columns and width(row) < columns
        before, behind = clip(row, 0, cursor), clip(row, cursor, columns)
        assert width(before) == cursor                      # no character lies across the cursor
        assert ('you> ' + editor.text[:editor.cursor]).endswith(before.lstrip(' '))
        assert editor.text[editor.cursor:].startswith(behind)
        if not editor.cursor:
            break
        editor.feed(LEFT.encode())


@pytest.mark.parametrize('columns', [-1, 0, 1, 2, 3, 4])
def test_view_survives_absurd_terminals(columns):
    for count in range(10):
        row, cursor = viewed('x' * count, columns)
        assert width(row) <= 3 and 0 <= cursor <= 3


def test_view_of_a_hidden_line_shows_the_prompt_alone():
    assert viewed('secret', prompt='Password: ', hidden=True) == ('Password: ', 10)


def test_view_escapes_the_prompt():
    assert viewed('hi', prompt='\x1b[2J\n> ') == (r'\x1b[2J\n> hi', 13)


# ---- a real terminal --------------------------------------------------------------------------------------

class Screen:
    """What a terminal of `columns` makes of the bytes it gets: rows of cells, and where the cursor is."""

    def __init__(self, columns):
        self.columns, self.cells, self.y, self.x = columns, [[]], 0, 0

    def write(self, data):
        for csi, number, final, char in re.findall(r'(\x1b\[)(\d*)(.)|([\s\S])', data.decode()):
            if csi:
                self.control(final, int(number or 1) or 1)
            else:
                self.put(char)

    def control(self, final, number):
        assert final == 'm', final                          # only colours come as sequences

    def put(self, char):
        if char == '\r':
            self.x = 0
        elif char == '\n':                                  # without a \r it stays in its column
            self.y += 1
            if self.y == len(self.cells):
                self.cells.append([])
        elif char == '\b':
            self.x -= 1
            assert self.x >= 0
        elif unicodedata.combining(char):
            self.cells[self.y][self.x - 1] += char
        else:
            assert char.isprintable(), repr(char)
            self.place(char, 2 if unicodedata.east_asian_width(char) in 'WF' else 1)

    def place(self, char, wide):
        if self.x + wide > self.columns:
            self.put('\r')
            self.put('\n')
        row = self.cells[self.y]
        row.extend(' ' * (self.x + wide - len(row)))
        row[self.x:self.x + wide] = [char] + [''] * (wide - 1)
        self.x += wide

    def rows(self):
        return [''.join(row).rstrip() for row in self.cells]

    def cursor(self):
        return self.y, self.x


class Tty:
    """A pseudo-terminal, a Terminal on its slave side and a Screen on its master side."""

    def __init__(self, columns=40):
        self.master, self.slave = os.openpty()
        self.output = os.fdopen(self.slave, 'wb', closefd=False)
        self.columns = columns
        self.screen = Screen(columns)
        self.terminal = Terminal(self.output, self.slave, lambda: self.columns)

    def type(self, keys):
        """Type, as far as the terminal's own settings let it through, and feed what comes out."""
        data = keys.encode()
        os.write(self.master, data)
        got = b''
        while len(got) < len(data):
            assert select.select([self.slave], [], [], 5)[0], f'of {data!r} only {got!r} arrived'
            got += os.read(self.slave, 1000)
        assert got == data
        return self.terminal.feed(got)

    def written(self):
        """All the bytes written since the last call; also shown on the screen."""
        os.write(self.slave, b'\x05')                       # a mark: what comes before it is all there is
        data = b''
        while not data.endswith(b'\x05'):
            assert select.select([self.master], [], [], 5)[0], data
            data += os.read(self.master, 10000)
        self.screen.write(data[:-1])
        return data[:-1]

    def rows(self):
        self.written()
        return self.screen.rows()

    def settings(self):
        return console.termios.tcgetattr(self.slave)

    def close(self):
        self.output.close()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def tty():
    if not console.termios:
        pytest.skip('no termios')
    tty = Tty()
    yield tty
    tty.close()


def test_raw_mode_is_set_and_restored(tty):
    termios, before = console.termios, tty.settings()
    with tty.terminal as terminal:
        assert terminal is tty.terminal
        iflag, oflag, _, lflag, _, _, chars = tty.settings()
        assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        assert not iflag & (termios.IXON | termios.ICRNL)
        assert oflag & termios.OPOST and oflag == before[1]
        assert chars[termios.VMIN] in (1, b'\x01') and chars[termios.VTIME] in (0, b'\x00')
        assert tty.settings() != before
    assert tty.settings() == before


def test_open_and_close_twice_is_once(tty):
    before = tty.settings()
    tty.terminal.close()
    tty.terminal.open()
    tty.terminal.open()
    tty.terminal.close()
    assert tty.settings() == before
    tty.written()
    tty.terminal.close()
    assert tty.written() == b''


def test_close_restores_after_an_exception(tty):
    before = tty.settings()
    with pytest.raises(ZeroDivisionError):
        with tty.terminal:
            1 / 0
    assert tty.settings() == before


def test_close_survives_a_terminal_that_is_gone():
    if not console.termios:
        pytest.skip('no termios')
    tty = Tty()
    tty.terminal.open()
    tty.close()
    tty.terminal.close()


def test_open_needs_a_terminal():
    if not console.termios:
        pytest.skip('no termios')
    with open(os.devnull, 'rb') as nothing:
        with pytest.raises(console.termios.error):
            Terminal(io.BytesIO(), nothing.fileno()).open()


def test_keys_arrive_as_they_are_typed(tty):
    with tty.terminal:
        assert tty.type('half') == []
        assert tty.type('\x11\x13\x16\x1c') == []           # no flow control, no literal next, no SIGQUIT
        assert tty.type(' line\r\n') == ['half line']
        assert tty.type('x\x03\x03\x04') == [Key.INTERRUPT, Key.END]
        assert tty.terminal.finish() == [Key.END]


def test_print_keeps_the_line_being_typed(tty):
    with tty.terminal:
        tty.terminal.ask('bob> ')
        tty.type('half 世 line' + LEFT * 4)
        tty.terminal.print('10:32 alice: hi')
        assert tty.rows() == ['10:32 alice: hi', 'bob> half 世 line']
        assert tty.screen.cursor() == (1, 13)
        tty.type('e\u0301')
        tty.terminal.print('one\n    | two')
        assert tty.rows() == ['10:32 alice: hi', 'one', '    | two', 'bob> half 世 e\u0301line']
        assert tty.screen.cursor() == (3, 14)
        assert tty.type('\r') == ['half 世 e\u0301line']
        assert tty.rows()[3] == 'bob>'                     # entered: erased
        assert tty.screen.cursor() == (3, 5)
    assert tty.rows() == ['10:32 alice: hi', 'one', '    | two', '']
    assert tty.screen.cursor() == (3, 0)


def test_print_folds_what_is_too_long(tty):
    with tty.terminal:
        tty.type('typed')
        tty.terminal.print('alice: ' + '世' * 20 + '\n' + 'x' * 40)
        assert tty.rows() == ['alice: ' + '世' * 16, INDENT + '世' * 4, 'x' * 40, 'typed']


def test_print_before_and_after_the_row_is_ours(tty):
    tty.terminal.ask('> ')
    tty.terminal.print('before')
    assert tty.written() == b'before\r\n'
    with tty.terminal:
        pass
    tty.terminal.print('after')
    assert tty.rows() == ['before', 'after', '']


def test_a_long_line_slides_and_never_wraps(tty):
    with tty.terminal:
        tty.terminal.ask('> ')
        for char in '世界' * 30:
            tty.type(char)
            assert len(tty.rows()) == 1
        tty.terminal.print('hi')
        assert tty.rows()[0] == 'hi'
        row, column = tty.terminal.editor.view(40)
        assert tty.rows()[1:] == [row]
        assert tty.screen.cursor() == (1, column)


def test_redraw_after_a_resize(tty):
    with tty.terminal:
        tty.columns = 20
        tty.type('x' * 30)
        assert tty.rows() == ['x' * 12]
        assert tty.screen.cursor() == (0, 12)
        tty.columns = 40
        tty.terminal.redraw()
        assert tty.rows() == ['x' * 30]
        assert tty.screen.cursor() == (0, 30)


def test_ask_in_secret_shows_nothing_of_the_answer(tty):
    with tty.terminal:
        tty.terminal.ask('Password: ', secret=True)
        tty.written()
        tty.type('s3cret')
        tty.terminal.print('hi')
        assert b's3cret' not in tty.written()
        assert tty.screen.rows() == ['hi', 'Password:']
        assert tty.screen.cursor() == (1, 10)
        assert tty.type('\r') == ['s3cret']
        tty.type('half a secret')
        tty.terminal.ask('> ')
        assert tty.rows() == ['hi', '>']
        assert tty.terminal.editor.text == ''
        tty.type('seen')
        assert tty.rows() == ['hi', '> seen']


def test_ask_keeps_what_was_typed_ahead_of_a_secret_but_never_shows_a_secret(tty):
    with tty.terminal:
        tty.type('s3c')
        tty.terminal.ask('Password: ', secret=True)
        assert tty.rows() == ['Password:'] and tty.type('ret\r') == ['s3cret']


def test_ask_keeps_what_was_typed_ahead_where_nothing_is_secret(tty):
    with tty.terminal:
        tty.type('ali')
        tty.terminal.ask('Name: ')
        assert tty.rows() == ['Name: ali']
        assert tty.terminal.editor.prompt == 'Name: '


def test_columns_are_asked_of_the_system(tty, monkeypatch):
    monkeypatch.setenv('COLUMNS', '20')
    with Terminal(tty.output, tty.slave) as terminal:
        terminal.print('x' * 21)
        assert tty.rows()[:2] == ['x' * 20, INDENT + 'x']


# ---- what is no terminal ----------------------------------------------------------------------------------

def test_plain_terminal_is_used_in_the_same_way():
    output = io.BytesIO()
    with PlainTerminal(output) as terminal:
        terminal.ask('> ')
        terminal.ask('Password: ', secret=True)
        assert terminal.feed('h\xe9'.encode()[:2]) == []
        assert terminal.feed('\xe9'.encode()[1:] + b'\ntwo\r\nthr') == ['h\xe9', 'two']
        terminal.redraw()
        terminal.print('10:32 alice: ' + 'x' * 100)
        assert terminal.finish() == ['thr', Key.END]
    assert output.getvalue() == b'10:32 alice: ' + b'x' * 100 + b'\n'


def test_plain_terminal_asks_where_somebody_reads():
    output = io.BytesIO()
    output.isatty = lambda: True
    PlainTerminal(output).ask('Name: \x1b', secret=True)
    assert output.getvalue() == b'Name: \\x1b\n'


def test_writing_never_fails_for_a_character():
    output = io.BytesIO()
    PlainTerminal(output).print('世 \ud800')
    assert output.getvalue() == '世 \\ud800\n'.encode()


def test_make_terminal(tty, monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    assert type(make_terminal(tty.output, tty.slave)) is Terminal
    assert type(make_terminal(io.BytesIO(), tty.slave)) is PlainTerminal
    with open(os.devnull, 'rb') as nothing:
        assert type(make_terminal(tty.output, nothing.fileno())) is PlainTerminal
    monkeypatch.setenv('TERM', 'dumb')
    assert type(make_terminal(tty.output, tty.slave)) is PlainTerminal


def test_without_termios_there_is_the_plain_terminal(tty, monkeypatch):
    monkeypatch.setitem(sys.modules, 'termios', None)
    spec = importlib.util.spec_from_file_location('console_of_windows', console.__file__)
    windows = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, windows)    # dataclasses looks its module up
    spec.loader.exec_module(windows)
    assert windows.termios is None
    assert type(windows.make_terminal(tty.output, tty.slave)) is windows.PlainTerminal


# ---- events as text ---------------------------------------------------------------------------------------

AT = 1714577520000                                          # 2024-05-01 15:32:00 UTC


@pytest.fixture
def new_york(monkeypatch):
    """Local time is five hours behind UTC, summer and winter."""
    if not hasattr(time, 'tzset'):
        pytest.skip('no tzset')
    monkeypatch.setenv('TZ', 'EST5')
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(event, me='me', color=False, multiline=True):
    return render(event, me=me, color=color, multiline=multiline)


ALICE, BOB = {'userId': 'alice', 'userName': 'alice'}, {'userId': 'bob', 'userName': 'bob'}
FROM_ALICE = {'fromUserId': 'alice', 'fromUserName': 'alice'}
ONE_LINE_EVENTS = [
    ({'event': 'connected', 'host': 'chat.example', 'port': 9000}, '-- connected to chat.example port 9000'),
    ({'event': 'connected', 'host': '::1', 'port': 9000}, '-- connected to ::1 port 9000'),
    ({'event': 'disconnected', 'reason': 'closed by the server'}, '-- disconnected: closed by the server'),
    ({'event': 'reconnecting', 'delay': 1.54, 'attempt': 3}, '-- connecting again in 1.5 s'),
    ({'event': 'reconnecting', 'delay': 1.54, 'attempt': 3, 'reason': 'refused'},
     '-- refused; connecting again in 1.5 s'),
    ({'event': 'login', 'userName': 'me', 'userId': 'me', 'version': 2},
     '-- logged in as me, protocol version 2'),
    ({'event': 'login', 'userName': 'Me', 'userId': 'me', 'version': 1},
     '-- logged in as Me (me), protocol version 1'),
    ({'event': 'login_failed', 'code': 'bad_password', 'reason': 'wrong password'},
     '! login failed: bad_password: wrong password', '! login failed: wrong password'),
    ({'event': 'login_failed', 'reason': 'wrong password'}, '! login failed: wrong password'),
    ({'event': 'logged_out'}, '-- logged out'),
    ({'event': 'kicked', 'reason': 'logged in elsewhere'},
     '! the server ended this session: logged in elsewhere',
     '! the server ended this session: logged in elsewhere -> /login NAME again'),
    ({'event': 'error', 'code': 'unknown_user', 'reason': 'there is no user nobody',
      'command': 'MESSAGE_REQUEST'},
     '! unknown_user: there is no user nobody (MESSAGE_REQUEST)',
     '! there is no user nobody -> /users lists who there is'),
    ({'event': 'error', 'reason': 'no such command'}, '! no such command'),
    ({'event': 'info', 'text': 'type /help'}, '-- type /help'),
    ({'event': 'message', **FROM_ALICE, 'message': 'hi', 'messageId': 7, 'sentAt': AT}, '10:32 alice: hi'),
    ({'event': 'message', **FROM_ALICE, 'message': 'hi'}, 'alice: hi'),
    ({'event': 'message', 'fromUserId': 'a1', 'fromUserName': 'Alice', 'message': 'hi'}, 'Alice (a1): hi'),
    ({'event': 'message', 'fromUserId': 'me', 'fromUserName': 'me', 'message': 'hi'}, 'you: hi'),
    ({'event': 'message', 'fromUserId': 'you', 'fromUserName': 'you', 'message': 'hi'}, 'you (you): hi'),
    ({'event': 'group_message', 'groupId': '1a2b3c4d', **FROM_ALICE, 'message': 'hi', 'sentAt': AT},
     '10:32 #1a2b3c4d alice: hi'),
    ({'event': 'group_message', 'groupId': '1a2b3c4d', 'message': 'hi'}, '#1a2b3c4d ?: hi'),
    ({'event': 'sent', 'toUserId': 'bob', 'message': 'hi', 'messageId': 8, 'sentAt': AT, 'clientSeq': 1},
     '10:32 you -> bob: hi', '10:32 you -> bob: hi ✓'),
    ({'event': 'sent', 'toUserId': 'bob', 'message': 'hi'}, 'you -> bob: hi'),
    ({'event': 'sent', 'toGroupId': '1a2b3c4d', 'message': 'hi', 'sentAt': AT},
     '10:32 #1a2b3c4d you: hi', '10:32 #1a2b3c4d you: hi ✓'),
    ({'event': 'group_created', 'groupId': '1a2b3c4d', 'userNameList': ['alice', 'bob']},
     '-- group #1a2b3c4d created with alice, bob'),
    ({'event': 'group_created', 'groupId': '1a2b3c4d', 'groupName': 'Lunch', 'userNameList': ['alice'],
      'unknownUserIdList': ['mallory', 'trent']},
     '-- group #1a2b3c4d (Lunch) created with alice; unknown: mallory, trent'),
    ({'event': 'joined', 'groupId': '1a2b3c4d'}, '-- you joined group #1a2b3c4d'),
    ({'event': 'left', 'groupId': '1a2b3c4d'}, '-- you left group #1a2b3c4d'),
    ({'event': 'notice', 'groupId': '1a2b3c4d', **BOB, 'action': 'joined'}, '-- bob joined group #1a2b3c4d'),
    ({'event': 'notice', 'groupId': '1a2b3c4d', **BOB, 'action': 'left', 'messageId': 9, 'sentAt': AT},
     '10:32 -- bob left group #1a2b3c4d'),
    ({'event': 'members', 'groupId': '1a2b3c4d', 'sessionList': [
        ALICE | {'online': True}, BOB | {'online': False}, {'userId': 'c1', 'userName': 'Carol'},
        {'userId': 'me', 'userName': 'me'}]},
     '-- group #1a2b3c4d has alice, bob (offline), Carol (c1), you'),
    ({'event': 'users', 'userList': [ALICE | {'online': True}, BOB | {'online': False}]},
     '-- users: alice, bob (offline)'),
    ({'event': 'users', 'userList': []}, '-- users: nobody'),
    ({'event': 'brand_new', 'groupId': 'g', 'list': [1, {'a': 'b'}]},
     "-- brand_new groupId=g list=[1, {'a': 'b'}]"),
    ({'event': 'brand_new'}, '-- brand_new'),
]
LIST_EVENTS = [
    ({'event': 'history', 'userId': 'alice', 'more': True, 'messages': [
        {'messageId': 1, 'sentAt': AT, 'fromUserId': 'alice', 'message': 'one\ntwo'},
        {'messageId': 2, 'sentAt': AT + 60000, 'fromUserId': 'me', 'message': 'yes'}]},
     '-- history with alice (there is more):\n  05-01 10:32 alice: one\n    | two\n  05-01 10:33 you: yes',
     '-- history with alice (there is more): 05-01 10:32 alice: one\\ntwo | 05-01 10:33 you: yes'),
    ({'event': 'history', 'groupId': '1a2b3c4d', 'more': False, 'messages': []},
     '-- history of group #1a2b3c4d:\n  nothing',
     '-- history of group #1a2b3c4d: nothing'),
    ({'event': 'groups', 'groupList': [{'groupId': '1a2b3c4d', 'groupName': 'Lunch', 'memberCount': 3},
                                       {'groupId': '5e6f7a8b', 'memberCount': 1}]},
     '-- groups:\n  #1a2b3c4d (Lunch), members: 3\n  #5e6f7a8b, members: 1',
     '-- groups: #1a2b3c4d (Lunch), members: 3 | #5e6f7a8b, members: 1'),
    ({'event': 'groups', 'groupList': []}, '-- groups:\n  none', '-- groups: none'),
    ({'event': 'message', **FROM_ALICE, 'message': 'one\ntwo', 'sentAt': AT},
     '10:32 alice: one\n    | two', '10:32 alice: one\\ntwo'),
    ({'event': 'info', 'text': 'commands:\n/help\n/quit'},
     '-- commands:\n   /help\n   /quit', '-- commands:\\n/help\\n/quit'),
]
EVERY_EVENT = [event for event, *_ in ONE_LINE_EVENTS + LIST_EVENTS]


@pytest.mark.parametrize('event, text, for_people', [(*one, one[-1])[:3] for one in ONE_LINE_EVENTS], ids=str)
def test_render(event, text, for_people, new_york):
    assert shown(event, multiline=False) == text
    assert shown(event) == for_people


@pytest.mark.parametrize('event, many, one', LIST_EVENTS)
def test_render_of_more_than_a_line(event, many, one, new_york):
    assert shown(event) == many
    assert shown(event, multiline=False) == one


def test_render_in_colour(new_york):
    message, error, joined = ({'event': 'message', **FROM_ALICE, 'message': 'hi', 'sentAt': AT},
                              {'event': 'error', 'reason': 'no'}, {'event': 'joined', 'groupId': 'g'})
    assert shown(message, color=True) == '\x1b[2m10:32\x1b[0m \x1b[92malice\x1b[0m: hi'
    assert shown(error, color=True) == '\x1b[31m! no\x1b[0m'
    assert shown(joined, color=True) == '\x1b[2m-- you joined group #g\x1b[0m'


@pytest.mark.parametrize('event', EVERY_EVENT)
@pytest.mark.parametrize('multiline', [True, False])
def test_colour_changes_nothing_but_the_colour(event, multiline):
    colored = shown(event, color=True, multiline=multiline)
    assert ESC in colored
    assert re.sub(r'\x1b\[\d+m', '', colored) == shown(event, multiline=multiline)


def poisoned(value, poison):
    """The event with `poison` behind every string a peer or the server may have written."""
    if isinstance(value, dict):
        return {key: item if key == 'event' else poisoned(item, poison) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, poison) for item in value]
    return value + poison if isinstance(value, str) else value


@pytest.mark.parametrize('poison', [text for text, _ in HOSTILE.values()] + ['\n10:32 bob: forged'])
@pytest.mark.parametrize('event', EVERY_EVENT)
def test_no_event_steers_the_terminal(event, poison):
    event = poisoned(event, poison)
    for text in (shown(event, multiline=False), shown(event).replace('\n', '')):
        assert not {unicodedata.category(char) for char in text} & {'Cc', 'Cf', 'Zl', 'Zp', 'Cs'}
    colored = re.sub(r'\x1b\[\d\d?m', '', shown(event, color=True, multiline=False))
    assert colored == shown(event, multiline=False)
    for row in shown(event).split('\n')[1:]:
        assert row.startswith('  ')                         # nobody begins a line of their own


def test_an_unknown_event_may_have_hostile_names_too():
    event = {'event': 'new\x1b', 'key\n': {'in\x07ner': '\u202e', 'message': 'a\nb'}, 'message': 'a\nb'}
    assert shown(event, multiline=False) == (
        r"-- new\x1b key\n={'in\\x07ner': '\\u202e', 'message': 'a\\nb'} message=a\nb")
    assert shown(event) == (
        "-- new\\x1b key\\n={'in\\\\x07ner': '\\\\u202e', 'message': 'a\\n    | b'} message=a\n    | b")


def test_a_message_cannot_forge_a_line_of_somebody_else():
    forged = '10:33 bob: send me money'
    event = {'event': 'message', **FROM_ALICE, 'message': f'hi\n{forged}\r\n{forged}\u2028{forged}'}
    assert forged not in shown(event).split('\n')
    assert shown(event).count('\n') == 2
    assert shown(event).split('\n')[1] == INDENT + forged
    ourselves = {'event': 'message', 'fromUserId': 'm\x1b', 'message': 'hi'}
    assert shown(ourselves, me='m\x1b') == 'you: hi'
    name = {'event': 'message', 'fromUserId': f'x\n{forged}', 'message': 'hi'}
    assert '\n' not in shown(name)


@pytest.mark.parametrize('moment', [10 ** 30, -10 ** 30, 10 ** 400, 1e308, float('nan'), float('inf'),
                                    'soon', None, [], 10 ** 17])
def test_a_time_that_cannot_be_shown_is_left_out(moment):
    text = shown({'event': 'message', **FROM_ALICE, 'message': 'hi', 'sentAt': moment})
    assert re.fullmatch(r'(\d\d:\d\d )?alice: hi', text)


def test_a_missing_field_is_a_fault_of_ours():
    with pytest.raises(KeyError):
        shown({'event': 'joined'})


def test_ordinary_events_fit_into_80_columns(new_york):
    for event in EVERY_EVENT:
        assert max(map(width, shown(event).split('\n'))) <= 80, event


# ---- who there is, and what is unread ---------------------------------------------------------------------

def noted(*events, me='me'):
    chats = Chats()
    for event in events:
        chats.note(event, me)
    return chats


def message(sender, group=None):
    place = {'event': 'group_message', 'groupId': group} if group else {'event': 'message'}
    return place | {'fromUserId': sender, 'fromUserName': sender, 'message': 'x'}


TEAM = {'groupId': '1a2b3c4d', 'groupName': 'team', 'memberCount': 2}


def test_a_group_is_called_by_its_name_where_that_says_which():
    chats = noted({'event': 'groups', 'groupList': [TEAM, {'groupId': '5e6f7a8b', 'memberCount': 1}]})
    assert [chats.title(target) for target in ('1a2b3c4d', '5e6f7a8b', 'bob')] == ['#team', '#5e6f7a8b', 'bob']
    words = '#team', '#5e6f7a8b', '1a2b3c4d', 'bob', '#0a0a0a0a', '#other', 'team', ''
    assert [chats.find(word) for word in words] == [
        '1a2b3c4d', '5e6f7a8b', '1a2b3c4d', 'bob', '0a0a0a0a', '', 'team', '']
    chats.note({'event': 'group_created', **TEAM, 'groupId': '99999999', 'userNameList': []}, 'me')
    assert chats.title('1a2b3c4d') == '#1a2b3c4d' and chats.title('99999999') == '#99999999'    # which of the two?
    assert chats.find('#team') == ''


@pytest.mark.parametrize('name', [
    '10:32 bob', '99999999', 'a: b', 'two words', 'x' * 65, 'a\x1b[2J', '', '#x', '\u202e'])
def test_a_name_that_could_pass_for_something_else_is_not_shown(name):
    chats = noted({'event': 'groups', 'groupList': [{**TEAM, 'groupName': name}]})
    assert chats.title('1a2b3c4d') == '#1a2b3c4d'


def test_a_name_is_kept_when_later_events_do_not_say_it():
    chats = noted({'event': 'groups', 'groupList': [TEAM]}, message('bob', '1a2b3c4d'))
    assert chats.title('1a2b3c4d') == '#team'


def test_unread_is_what_others_said_elsewhere():
    chats = noted({'event': 'groups', 'groupList': [TEAM]},
                  message('bob'), message('bob'), message('carol', '1a2b3c4d'))
    assert chats.unread() == ' (bob 2, #team 1)'
    chats.note(message('me', '1a2b3c4d'), 'me')                             # who answers has read it
    assert chats.unread() == ' (bob 2)'
    chats.note({'event': 'sent', 'toUserId': 'bob', 'message': 'x'}, 'me')
    assert chats.unread() == ''
    chats.note({'event': 'sent', 'toUserId': '20230001', 'message': 'x'}, 'me')
    assert '20230001' in chats.users and chats.unread() == ''
    chats.note(message('bob'), 'me')
    chats.front = 'bob'
    assert chats.unread() == ''
    chats.front = ''
    assert chats.unread() == ''
    for n, name in enumerate(('a', 'b', 'c', 'd')):
        for _ in range(n + 1):
            chats.note(message(name), 'me')
    assert chats.unread() == ' (d 4, c 3, b 2)'                             # no more than fit a prompt


def test_users_are_learnt_from_whatever_names_them():
    chats = noted(message('alice'), {'event': 'users', 'userList': [{'userId': 'bob'}, {'userId': 'me'}]},
                  {'event': 'members', 'groupId': 'g', 'sessionList': [{'userId': 'carol'}, {}]},
                  {'event': 'notice', 'groupId': 'g', 'userId': 'dave', 'action': 'joined'},
                  {'event': 'info', 'text': 'x'})
    assert chats.users == {'alice', 'bob', 'carol', 'dave'} and set(chats.groups) == {'g'}


def test_a_group_that_was_left_is_no_longer_in_front():
    chats = Chats()
    chats.front = 'g'
    chats.note({'event': 'left', 'groupId': 'h'}, 'me')
    assert chats.front == 'g'
    chats.note({'event': 'left', 'groupId': 'g'}, 'me')
    assert chats.front == ''


def test_a_hash_alone_names_no_group():
    chats = noted({'event': 'group_created', 'groupId': '0a0a0a0a', 'userNameList': []})
    assert chats.find('#') == '' and chats.find('#0a0a0a0a') == '0a0a0a0a'


def test_a_server_cannot_make_it_remember_without_end():
    chats = Chats()
    for n in range(console.KNOWN_NAMES + 100):
        chats.note(message(f'u{n}', f'g{n}'), 'me')
        chats.note(message(f'v{n}'), 'me')
    chats.note(message('x' * 65, 'y' * 65), 'me')
    assert len(chats.users) == len(chats.groups) == console.KNOWN_NAMES
    assert len(chats._unread) <= 2 * console.KNOWN_NAMES


def test_tab_after_something_that_cannot_be_typed_leaves_the_rest_whole():
    editor = LineEditor()
    editor.complete = lambda text: ['x' * 64, 'alice']
    assert edited('y' * (LINE_LIMIT - 1) + LEFT * 3 + '\t\t\t', editor).count('y') == LINE_LIMIT - 1
    assert 0 <= editor.cursor <= len(editor.text)


def test_what_tab_offered_is_forgotten_with_the_line():
    editor = LineEditor()
    editor.complete = lambda text: ['alice', 'anna']
    edited('/msg a\t', editor)
    editor.clear()
    editor.hidden = True
    assert edited('\t', editor) == '_'
