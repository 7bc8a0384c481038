"""A terminal for tests of what somebody sees: a program in tmux where that is there, else in a pseudo-terminal.

Both have the same four methods and a real terminal driver behind them: `type` and `press` keys, `rows` and `cursor` of
what stands on the screen.  tmux is a terminal that we did not write, so it judges widths and control characters for us;
the other one knows no more than our own programs send.
"""
from __future__ import annotations

import codecs
import fcntl
import itertools
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios

from processes import ROOT, wait_until
from test_console import Screen

KEYS = {'Enter': '\r', 'Tab': '\t', 'BSpace': '\x7f', 'Escape': '\x1b', 'Up': '\x1b[A', 'Down': '\x1b[B', 'Right': '\x1b[C',
        'Left': '\x1b[D', 'Home': '\x1b[1~', 'End': '\x1b[4~', **{f'C-{chr(96 + n)}': chr(n) for n in range(1, 27)}}
_numbers = itertools.count()


class _Terminal:
    def until(self, is_done, what):
        wait_until(lambda: is_done(self.rows()), lambda: f'{what}\n' + '\n'.join(self.rows()))
        return self

    def sees(self, *texts):
        """Wait until each of `texts` is in some row."""
        return self.until(lambda rows: all(any(text in row for row in rows) for text in texts), texts)

    def last(self, text):
        """Wait until the last row that is not empty is `text`: what is being typed."""
        return self.until(lambda rows: [row for row in rows if row][-1:] == [text], f'last: {text}')


class Tmux(_Terminal):
    """`command` (words) in a tmux of its own; `rows_kept` rows, `columns` wide."""

    def __init__(self, command, columns, rows_kept=24, **variables):
        self._name = f'im-{os.getpid()}-{next(_numbers)}'
        environ = {name: value for name, value in os.environ.items() if name != 'TMUX'} | {'LC_ALL': 'C.UTF-8'}
        self._tmux('-f', os.devnull, 'new-session', '-d', '-x', columns, '-y', rows_kept, 'env', *(
            f'{name}={value}' for name, value in variables.items()), *command, env=environ, cwd=ROOT)

    def _tmux(self, *arguments, **options):
        done = subprocess.run(['tmux', '-u', '-L', self._name, *map(str, arguments)], capture_output=True, timeout=20,
                              encoding='utf-8', **options)
        return done.stdout

    def type(self, text): self._tmux('send-keys', '-l', '--', text)
    def press(self, *keys): self._tmux('send-keys', *keys)
    def rows(self, *options): return [row.rstrip() for row in self._tmux('capture-pane', '-p', *options).split('\n')]

    def cursor(self):
        return tuple(map(int, self._tmux('display-message', '-p', '#{cursor_x} #{cursor_y}').split()))

    def resize(self, columns): self._tmux('resize-window', '-x', columns)
    def close(self): self._tmux('kill-server')


class Pty(_Terminal):
    """The same in a pseudo-terminal."""

    def __init__(self, command, columns, rows_kept=24, **variables):
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(ROOT)
            os.execvpe(command[0], command, {**os.environ, 'TERM': 'xterm', **variables})
        self._screen, self._decoder = Screen(columns), codecs.getincrementaldecoder('utf-8')()
        self.resize(columns, rows_kept)

    def resize(self, columns, rows_kept=24):
        self._screen.columns = columns
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack('HHHH', rows_kept, columns, 0, 0))

    def type(self, text): os.write(self._master, text.encode())
    def press(self, *keys): self.type(''.join(KEYS[key] for key in keys))

    def rows(self, *options):
        while select.select([self._master], [], [], 0)[0]:
            try:
                self._screen.write(self._decoder.decode(os.read(self._master, 65536)).encode())
            except OSError:  # EIO: the program has ended
                break
        return self._screen.rows()

    def cursor(self): return self._screen.cursor()[::-1]

    def close(self):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)


BACKENDS = ([Tmux] if shutil.which('tmux') else []) + [Pty]
