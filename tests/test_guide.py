"""The guide to the lessons: every verb, in processes of its own, on small chapters that stand in a folder of their own.

In order: the chapters; the map; run; trace; check; hint, solution, diff; what is asked wrongly; the parts alone.

The project that is tested is a copy with the chapters below, so that a test may break in it what it likes.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lessons import chapters, check, play, screen, tap
from protocol import HeartbeatRequest, MessageRequest, encode

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds until a test gives up
FRAME = encode(MessageRequest(to_user_id='all', message='hi'), 1)
pytestmark = pytest.mark.usefixtures('no_coverage')
posix = pytest.mark.skipif(os.name != 'posix', reason='signals and terminals of POSIX')


# The chapters ........................................................................................

SERVER = '''"""Sends back what a client sent, once the client has ended its output."""
import argparse, socket
parser = argparse.ArgumentParser()
parser.add_argument('--port', type=int, default=8000)
port = parser.parse_args().port
with socket.create_server(('127.0.0.1', port)) as listener:
    try:
        print(f'listening on 127.0.0.1:{port}')
        while True:
            client, _ = listener.accept()
            with client:
                data = b''.join(iter(lambda: client.recv(4096), b''))
                client.sendall(data)
                print(f'echoed {len(data)} bytes')
    except KeyboardInterrupt:
        print('stopped')
'''
CLIENT = '''"""Sends, ends its output, and shows how much comes back."""
import argparse, socket, time
from protocol import MessageRequest, encode
parser = argparse.ArgumentParser()
parser.add_argument('--port', type=int, default=8000)
port = parser.parse_args().port
while True:
    try:
        sock = socket.create_connection(('127.0.0.1', port))
        break
    except ConnectionRefusedError:
        print('no server yet, again in 0.1 s')
        time.sleep(0.02)
with sock:
    sock.sendall(PAYLOAD)
    sock.shutdown(socket.SHUT_WR)
    print(f"received {len(b''.join(iter(lambda: sock.recv(4096), b'')))} bytes in 0.5 s")
'''
EXERCISE = '''"""Double and halve."""


def double(number: int) -> int:
    return None  # TODO


def halve(number: int) -> int:
    return None  # TODO
'''
SOLUTION = '''"""Double and halve."""


def double(number: int) -> int:
    return 2 * number


def halve(number: int) -> int:
    return number // 2
'''
TESTS = '''"""The checks of the exercise."""
import pytest
from lessons.check import expect, expect_raises


@pytest.mark.parametrize('number', [1, 2])
def test_a_number_is_doubled(exercise, number):
    expect(f'double({number})', exercise.double(number), 2 * number, 'Twice')


def test_a_number_is_halved(exercise):
    expect('halve(8)', exercise.halve(8), 4, 'Once')


def test_a_text_is_not_halved(exercise):
    expect_raises("halve('8')", lambda: exercise.halve('8'), TypeError, 'Once')
'''
README_1 = '''# Chapter 1: Echo · 回声

*You build an echo.*

## Run it
```console server
$ python3 -m lessons.01_echo.server
listening on 127.0.0.1:8000
```
```console alice
$ python3 -m lessons.01_echo.client
received 44 bytes in 0.3 s
```
```console server
echoed 44 bytes
```

## Exercise
<details><summary>Hint 1</summary>

Two numbers **stand** there, 12<!-- =3 * 4 -->: think of what it means to have one of them twice, and write that.

- one item of a list that is long enough to be wrapped somewhere
- another

</details>
<details><summary>Hint 2</summary>

```python
    return 2 * number  # a line of code stays as it is, also where it is wider than the terminal
```

</details>
'''
README_2 = '''# Chapter 2: Lines of text, early or late · 文本行

*You build lines.*

## Run it
### A client that is early
```console alice
$ python3 -m lessons.02_lines.client
no server yet, again in 0.1 s
```
```console server
$ python3 -m lessons.02_lines.server
listening on 127.0.0.1:8000
```
```console alice
received 22 bytes in 0.3 s
```
```console server
echoed 22 bytes
^C
stopped
```
### A program by itself
```console you
$ python3 -c "print('so')"
so
$ python3 -c "print('then')"
then
```
'''
README_0 = '''# Chapter 0: Tour · 总览

*You build nothing.*

## Run it
```console you
$ python3 -c "print('a tour')"
a tour
```
'''


class Project:
    """A copy of the guide, with chapters of ours.  `root` may hold an older one: what Python compiled then is kept."""

    def __init__(self, root):
        self.root, self.lessons = root, root / 'lessons'
        for path in [*root.glob('*'), *self.lessons.glob('*'), *self.lessons.glob('.progress')]:
            if path.is_dir() and path.name not in ('lessons', '__pycache__'):
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
        self.lessons.mkdir(exist_ok=True)
        for file in [ROOT / '.pytest.ini', ROOT / 'protocol.py', *(ROOT / 'lessons').glob('*.py')]:
            shutil.copy2(file, root / file.relative_to(ROOT))
        self.write('00_tour', **{'README.md': README_0})
        self.write('01_echo', **{
            'README.md': README_1, 'server.py': SERVER, 'exercise.py': EXERCISE, 'solution.py': SOLUTION,
            'client.py': CLIENT.replace('PAYLOAD', "encode(MessageRequest(to_user_id='all', message='hi'), 1)"),
            'test_exercise.py': TESTS})
        self.write('02_lines', **{
            'README.md': README_2, 'server.py': SERVER, 'exercise.py': EXERCISE, 'test_exercise.py': TESTS,
            'client.py': CLIENT.replace('PAYLOAD', r"b'alice: \xe4 line of text\n'[:22]")})

    def write(self, chapter, **files):
        for name, text in files.items():
            (self.lessons / chapter).mkdir(exist_ok=True)
            (self.lessons / chapter / name).write_text(text, encoding='utf-8')

    def edit(self, file, old, new):
        text = (self.lessons / file).read_text(encoding='utf-8')
        assert old in text
        (self.lessons / file).write_text(text.replace(old, new), encoding='utf-8')

    def solve(self, text=SOLUTION):
        self.write('01_echo', **{'exercise.py': text})

    def start(self, *arguments, stdout=subprocess.PIPE, **variables):
        given = {name: value for name, value in os.environ.items()
                 if not name.startswith(('COVERAGE_', 'COLUMNS', 'NO_COLOR', 'LESSON_', 'PYTHON'))}
        return subprocess.Popen(
            [sys.executable, '-m', 'lessons', *arguments], cwd=self.root, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.PIPE, encoding='utf-8', env={**given, 'PYTHONIOENCODING': 'utf-8', **variables})

    def guide(self, *arguments, **variables):
        """Return the exit code, and what was printed."""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert 'Traceback' not in out + err
        return process.returncode, out, err

    def without(self, package):
        """Return the variables of an environment in which the package is not installed."""
        folder = self.root / f'without_{package}'
        folder.mkdir()
        (folder / 'sitecustomize.py').write_text(f'import sys\nsys.modules[{package!r}] = None\n', encoding='utf-8')
        return {'PYTHONPATH': str(folder)}

    @property
    def progress(self):
        return json.loads((self.lessons / '.progress').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('project')


@pytest.fixture
def project(root):
    return Project(root)


def port_in(text):
    return int(re.search(r'listening on 127\.0\.0\.1:(\d+)', text)[1])


def is_refused(port):
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) != 0


# The map .............................................................................................

def test_the_map_names_the_chapters_and_what_comes_next(project):
    code, out, err = project.guide()
    assert (code, err) == (0, '')
    assert out.splitlines()[:3] == ['   0  Tour · 总览', '   1  Echo · 回声', '   2  Lines of text, early or late · 文本行']
    assert '0 of 3 chapters are done. Next is 0: read lessons/00_tour/README.md' in out
    assert out.endswith('\n    python3 -m lessons run 0\n')


def test_the_map_shows_what_is_done(project):
    project.guide('run', '0')
    assert project.guide()[1].endswith('\n    python3 -m lessons check 0\n')
    project.solve()
    project.guide('check', '1')
    out = project.guide()[1]
    assert [line[:7] for line in out.splitlines()[:3]] == ['   0  T', '✓  1  E', '   2  L']
    (project.lessons / '.progress').write_text(json.dumps(
        {'run': [], 'hints': {}, 'done': ['00_tour', '01_echo', '02_lines']}), encoding='utf-8')
    assert project.guide()[1].endswith('\nAll 3 chapters are done.\n')


def test_the_map_keeps_to_what_the_terminal_can_show(project):
    project.solve()
    project.guide('check', '1')
    assert project.guide(PYTHONIOENCODING='ascii')[1].splitlines()[:2] == ['[ ]  0  Tour', '[x]  1  Echo']


def test_the_map_fits_a_narrow_terminal(project):
    lines = project.guide(COLUMNS='40')[1].splitlines()
    assert max(map(screen.columns, lines)) <= 40
    assert lines[2:4] == ['   2  Lines of text, early or late ·', '      文本行']  # in one it would take 43 columns


@pytest.mark.parametrize('damage', ['', '{', '[]', '{"run": [], "done": [1], "hints": {}}',
                                    '{"run": [], "done": [], "hints": {"01_echo": "x"}}', '\xff'])
def test_damaged_progress_starts_anew(project, damage):
    (project.lessons / '.progress').write_bytes(damage.encode('latin-1'))
    code, out, err = project.guide('hint', '1')
    assert (code, err.count('\n')) == (0, 1)
    assert '.progress' in err and 'Hint 1 of 2' in out
    assert project.progress['hints'] == {'01_echo': 1}


def test_progress_that_cannot_be_kept_is_a_line(project):
    (project.lessons / '.progress').mkdir()
    code, out, err = project.guide('hint', '1')
    assert code == 0 and 'Hint 1 of 2' in out
    assert err.splitlines()[-1].startswith(f'{project.lessons / ".progress"} cannot be written')


# run .................................................................................................

def test_a_chapter_is_played(project):
    code, out, err = project.guide('run', '1')
    assert (code, err) == (0, '')
    lines = re.sub(r':\d+', ':PORT', out).splitlines()
    assert lines[:3] == ['server | $ python3 -m lessons.01_echo.server', 'server | listening on 127.0.0.1:PORT',
                         'alice | $ python3 -m lessons.01_echo.client']
    assert sorted(lines[3:]) == ['alice | received 44 bytes in 0.5 s', 'server | echoed 44 bytes']
    assert is_refused(port_in(out))
    assert project.progress['run'] == ['01_echo']


def test_scenes_follow_each_other_and_what_is_interrupted_ends(project):
    code, out, err = project.guide('run', '2')
    assert (code, err) == (0, '')
    assert [line for line in out.splitlines() if line.startswith('server |')][-2:] == (
        ['server | ^C', 'server | stopped'] if os.name == 'posix' else ['server | echoed 22 bytes', 'server | ^C'])
    assert out.endswith('''
you | $ python3 -c "print('so')"
you | so
you | $ python3 -c "print('then')"
you | then
''')


def test_a_run_that_hangs_ends_with_a_line(project):
    project.edit('play.py', 'DEADLINE = 20.0', 'DEADLINE = 2.0')
    project.edit('01_echo/README.md', 'echoed 44 bytes', 'what never comes')
    code, out, err = project.guide('run', '1')
    assert (code, err) == (1, 'waited 2 s, in vain: server was to show the line: what never comes\n')
    assert is_refused(port_in(out))


def test_a_program_that_ends_too_early_is_a_line(project):
    project.edit('01_echo/README.md', 'received 44', 'received 45')
    code, _, err = project.guide('run', '1')
    assert code == 1
    assert err == ('alice ended without the line: received 45 bytes in # s; its last was: received 44 bytes in 0.5 s\n')


def test_a_program_that_does_not_end_is_a_line(project):
    project.edit('play.py', 'DEADLINE = 20.0', 'DEADLINE = 1.0')
    project.edit('00_tour/README.md', "print('a tour')", "print('a tour'); input = __import__('time').sleep(99)")
    code, _, err = project.guide('run', '0')
    assert code == 1
    assert err.startswith('waited 1 s, in vain: you was to end: python3 -c')


@posix
def test_nothing_that_a_program_started_is_left(project):
    project.write('00_tour', **{'client.py': (
        '"""Leaves a server behind, and stays."""\nimport subprocess, sys, time\n'
        f'subprocess.Popen([sys.executable, {str(project.lessons / "01_echo" / "server.py")!r}, *sys.argv[1:]])\n'
        'time.sleep(99)\n')})
    project.edit('00_tour/README.md', "-c \"print('a tour')\"\na tour",
                 '-m lessons.00_tour.client\nlistening on 127.0.0.1:1')
    code, out, _ = project.guide('run', '0')
    assert code == 0 and is_refused(port_in(out))


@posix
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(project, number):
    project.edit('01_echo/README.md', 'echoed 44 bytes', 'what never comes')
    with project.start('run', '1') as process:
        port = port_in(process.stdout.readline() + process.stdout.readline())
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, 'stopped\n')
    assert is_refused(port)


def test_a_reader_of_one_line_ends_everything(project):
    project.edit('01_echo/README.md', 'echoed 44 bytes', 'what never comes')
    with project.start('run', '1') as process:
        port = port_in(process.stdout.readline() + process.stdout.readline())
        process.stdout.close()
        err = process.stderr.read()
        process.wait(PATIENCE)
    assert (process.returncode, err) == (0, '')
    assert is_refused(port)


def test_a_map_that_nobody_reads_is_no_error(project):
    with project.start() as process:
        process.stdout.close()
        assert process.stderr.read() == ''


@posix
@pytest.mark.parametrize('variables, colored', [({'TERM': 'xterm'}, True), ({'TERM': 'xterm', 'NO_COLOR': '1'}, False),
                                                ({'TERM': 'dumb'}, False)])
def test_a_terminal_gets_colors(project, variables, colored):
    import pty
    ours, theirs = pty.openpty()
    text = b''
    with project.start('run', '1', stdout=theirs, **variables):
        os.close(theirs)
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while data := os.read(ours, 4096):
                text += data
    os.close(ours)
    prefixes = set(re.findall(rb'^.*?\|\S*', text.replace(b'\r', b''), re.MULTILINE))
    assert prefixes == ({b'\x1b[36mserver |\x1b[0m', b'\x1b[33malice |\x1b[0m'} if colored
                        else {b'server |', b'alice |'})


# trace ...............................................................................................

def test_every_frame_is_explained_in_both_directions(project):
    code, out, err = project.guide('trace', '1')
    assert (code, err) == (0, '')
    for direction in ('alice -> server', 'server -> alice'):
        assert [line.partition(' | ')[2] for line in out.splitlines() if line.startswith(direction)] == [
            'a frame of 44 bytes', '   0  12 34 56 78  magic', '   4  01           version 1',
            '   5  01           serializer 1', '   6  03           command 3 MESSAGE_REQUEST',
            '   7  00 00 00 21  length 33', '  11  {"message":"hi","toUserId":"all"}']
    assert 'alice | received 44 bytes' in out


def test_a_client_is_refused_until_the_server_is_there_and_lines_are_shown_in_hex(project):
    code, out, err = project.guide('trace', '2')
    assert (code, err) == (0, '')
    assert out.index('alice | no server yet') < out.index('server | listening') < out.index('alice -> server')
    assert '''
alice -> server | 22 bytes, no frame
alice -> server |    0  61 6c 69 63 65 3a 20 e4 20 6c 69 6e 65 20 6f 66  alice: . line of
alice -> server |   16  20 74 65 78 74 0a                                 text.
''' in out


def test_a_run_without_a_wire_says_so(project):
    code, out, _ = project.guide('trace', '0')
    assert code == 0
    assert out.splitlines()[1:] == ['you | a tour', '', (
        'No client and no server of this chapter to listen to: this is what `run` shows.')]


@pytest.fixture
def tapped():
    """A listening socket, the port of a gate to it, and a list that gets what is told."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(PATIENCE)
        told = []
        wire = tap.Tap(listener.getsockname()[1], lambda who, line: told.append((who, line)))
        port = wire.port_for('bob')
        assert is_refused(port)
        wire.server_is_up()
        yield listener, port, told
        wire.server_is_down()
        assert is_refused(port)


def test_a_reset_is_passed_on(tapped):
    listener, port, _ = tapped
    with socket.create_connection(('127.0.0.1', port), PATIENCE) as client:
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_close_is_passed_on_and_what_was_left_is_told(tapped):
    listener, port, told = tapped
    with socket.create_connection(('127.0.0.1', port), PATIENCE) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            client.sendall(FRAME[:5])
            client.shutdown(socket.SHUT_WR)
            assert b''.join(iter(lambda: server.recv(100), b'')) == FRAME[:5]
            server.sendall(b'bye')
            assert client.recv(100) == b'bye'
        assert client.recv(100) == b''
    assert ('bob -> server', '5 bytes, no frame') in told


def test_frames_are_read_however_they_arrive():
    beat = encode(HeartbeatRequest(), 1)
    reader = tap.Reader()
    lines = [line for byte in FRAME + beat for line in reader.read(bytes([byte]))]
    assert [line for line in lines if 'frame' in line] == ['a frame of 44 bytes', f'a frame of {len(beat)} bytes']
    assert reader.end() == []
    lines = tap.Reader().read(beat + FRAME[:4] + b'?')
    assert lines[0] == f'a frame of {len(beat)} bytes'
    assert lines[-2:] == ['5 bytes, no frame', f'{"   0  12 34 56 78 3f":<54} .4Vx?']


# check ...............................................................................................

def test_an_untouched_exercise_fails_with_an_answer(project):
    code, out, err = project.guide('check', '1')
    assert (code, err) == (1, '')
    assert out == '''failed: a number is doubled (1)

  call:        double(1)
  got:         None
  expected:    2
  read again:  "Twice" in lessons/01_echo/README.md

4 of 4 checks failed; this was the first

A hint: python3 -m lessons hint 1
'''
    assert not (project.lessons / '.progress').exists()


def test_a_solved_exercise_passes_and_is_noted(project):
    project.solve()
    code, out, err = project.guide('check', '1')
    assert (code, err) == (0, '')
    assert out.splitlines()[:2] == ['all 4 checks passed', 'they reached every line of yours']
    assert out.endswith('\n    python3 -m lessons run 0\n')
    assert project.progress['done'] == ['01_echo']


def test_a_check_of_the_solution_is_not_noted(project):
    assert project.guide('check', '1', '--file', 'lessons/01_echo/solution.py')[0] == 0
    assert not (project.lessons / '.progress').exists()


def test_what_no_check_reached_is_shown(project):
    project.solve(SOLUTION.replace('    return 2', '''    if number == 7:
        if number:
            return 14
    if number:
        number += 0
    return 2'''))
    assert project.guide('check', '1')[1].startswith('''all 4 checks passed
of exercise.py no check reached:
     6          if number:
     7              return 14
     8      if number:  # never on to line 10

''')


def test_the_whole_file_is_shown_with_what_was_reached(project):
    project.solve(SOLUTION.replace('    return 2', '    if number == 7:\n        return 14\n    return 2'))
    code, out, _ = project.guide('check', '1', '--coverage')
    assert code == 0
    assert '''
+    4  def double(number: int) -> int:
~    5      if number == 7:  # never on to line 6
-    6          return 14
+    7      return 2 * number
     8
''' in out


def test_an_exception_is_shown_with_its_line_and_what_was_printed(project):
    project.solve(SOLUTION.replace('    return number // 2', '    print("so far")\n    return number[0]'))
    code, out, _ = project.guide('check', '1')
    assert code == 1
    assert out.startswith('''failed: a number is halved

  call:        halve(8)
  got:         TypeError: 'int' object is not subscriptable
  expected:    4
  read again:  "Once" in lessons/01_echo/README.md
  exercise.py, line 10: return number[0]

  your code printed:
    so far
''')


def test_an_exception_behind_a_helper_of_the_tests_is_shown_like_any_other(project):
    project.edit('01_echo/test_exercise.py', 'exercise.halve(8), 4', 'half(exercise), 4')
    project.edit('01_echo/test_exercise.py', 'import pytest\n',
                 'import pytest\n\n\ndef half(exercise):\n    return exercise.halve(8)\n\n\n')
    project.solve(SOLUTION.replace('number // 2', 'number[0]'))
    assert '  call:        halve(8)\n  got:         TypeError: ' in project.guide('check', '1')[1]


def test_an_exception_elsewhere_is_shown_with_both_lines(project):
    project.edit('01_echo/test_exercise.py', "    expect('halve(8)', exercise.halve(8),",
                 "    half = exercise.halve(8)\n    expect('halve(8)', half,")
    project.solve(SOLUTION.replace('number // 2', 'number[0]'))
    assert project.guide('check', '1')[1].startswith('''failed: a number is halved

  TypeError: 'int' object is not subscriptable
  exercise.py, line 9: return number[0]
  test_exercise.py, line 12: half = exercise.halve(8)
''')


def test_what_failed_before_a_hang_is_told(project):
    project.solve(SOLUTION.replace('2 * number', '3').replace('    return number', '    while number: pass\n    return 1'))
    project.edit('check.py', 'LIMIT = 20.0', 'LIMIT = 1.0')
    code, out, _ = project.guide('check', '1')
    assert code == 1 and out.startswith('''exercise.py did not end within 1 s: it hung in line 9: while number: pass

before that, failed: a number is doubled (1)

  call:        double(1)
  got:         3
  expected:    2
''')


def test_a_wrong_exception_is_named(project):
    project.solve(SOLUTION.replace('    return number // 2', '    return int(number) // 2'))
    out = project.guide('check', '1')[1]
    assert "  call:        halve('8')\n  got:         4, and no exception\n  expected:    TypeError is raised\n" in out


@pytest.mark.parametrize('text, line', [(SOLUTION.replace('return 2', 'while number: pass\n    return 2'), 5),
                                        ('x = 1\nwhile x: pass\n', 2)])
def test_an_endless_loop_is_found(project, text, line):
    project.solve(text)
    project.edit('check.py', 'LIMIT = 20.0', 'LIMIT = 1.0')
    code, out, _ = project.guide('check', '1')
    hung = f'exercise.py did not end within 1 s: it hung in line {line}: while '
    assert code == 1 and out.startswith(hung)


@pytest.mark.parametrize('text, complaint', [
    ('def f(:\n', "lessons/01_echo/exercise.py, line 1: invalid syntax"),
    ('x = "\n', 'lessons/01_echo/exercise.py, line 1: unterminated string literal (detected at line 1)'),
    ('x = 1\0\n', 'null bytes')])
def test_what_is_no_python_is_a_line(project, text, complaint):
    project.solve(text)
    code, out, err = project.guide('check', '1')
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert complaint in err.replace('\\', '/')


def test_a_file_that_is_not_there_is_a_line(project):
    assert project.guide('check', '1', '--file', 'mine.py') == (2, '', 'mine.py: No such file or directory\n')
    (project.lessons / '01_echo' / 'exercise.py').unlink()
    code, out, err = project.guide('check', '1')
    assert (code, out) == (2, '') and err.endswith('exercise.py: No such file or directory\n')


def test_a_file_that_cannot_be_imported_is_a_line(project):
    project.solve('"""Mine."""\nimport json\njson.nothing\n')
    code, out, _ = project.guide('check', '1')
    assert code == 1
    assert out.splitlines()[0] == ("exercise.py, line 3: json.nothing cannot be imported: AttributeError: module "
                                   "'json' has no attribute 'nothing'")


def test_a_file_elsewhere_imports_the_chapter_and_is_new_for_each_check(project):
    mine = project.root / 'my own.py'
    mine.write_text(SOLUTION.replace('def double', 'from .part import two\nimport sys\ncalls = []\n\ndef double')
                    .replace('return 2 *', 'calls.append(1)\n    assert vars(sys.modules[__name__]) is globals()\n'
                             '    return (two if len(calls) == 1 else 9) *'),
                    encoding='utf-8')
    project.write('01_echo', **{'part.py': '"""A part."""\ntwo = 2\n'})
    code, out, _ = project.guide('check', '1', '--file', str(mine))
    assert code == 0, out
    assert project.progress['done'] == ['01_echo']


def test_an_exercise_that_ends_the_process_has_not_passed(project):
    project.solve(SOLUTION.replace('return 2 *', '__import__("os")._exit(0)\n    return 2 *'))
    code, out, _ = project.guide('check', '1')
    assert code == 1 and out.startswith('the checks ended early')


def test_missing_packages_are_a_line(project):
    project.solve()
    code, out, err = project.guide('check', '1', **project.without('pytest'))
    assert (code, out, err) == (2, '', 'the checks need pytest: python3 -m pip install -r requirements-dev.txt\n')
    variables = project.without('coverage')
    code, out, err = project.guide('check', '1', '--coverage', **variables)
    assert (code, out, err) == (2, '', '--coverage needs coverage: python3 -m pip install -r requirements-dev.txt\n')
    code, out, _ = project.guide('check', '1', **variables)
    assert code == 0
    assert out.splitlines()[1].endswith('coverage can tell: python3 -m pip install -r requirements-dev.txt')


@pytest.mark.parametrize('file, failures', [('exercise.py', 4), ('solution.py', 0)])
def test_pytest_alone_can_be_used_too(project, file, failures):
    given = {name: value for name, value in os.environ.items() if not name.startswith('COVERAGE_')}
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', 'lessons'], cwd=project.root, capture_output=True, encoding='utf-8',
        env={**given, 'LESSON_FILE': str(project.lessons / '01_echo' / file)}, timeout=PATIENCE)
    assert done.returncode == bool(failures), done.stdout
    assert done.stdout.count('E       got:         None') == 2 * failures  # of both chapters
    assert 'Error in' not in done.stdout and 'errors' not in done.stdout


# hint, solution, diff ................................................................................

def test_hints_come_one_after_the_other(project):
    code, out, err = project.guide('hint', '1', COLUMNS='40')
    assert (code, err) == (0, '')
    assert out == '''Hint 1 of 2

Two numbers stand there, 12: think of
what it means to have one of them twice,
and write that.

- one item of a list that is long enough
  to be wrapped somewhere
- another
'''
    second = project.guide('hint', '1', COLUMNS='40')[1]
    assert second.startswith('Hint 2 of 2\n\n        return 2 * number  # a line of code stays as it is, also where')
    for _ in range(2):
        out = project.guide('hint', '1', COLUMNS='40')[1]
        assert out == f'{second}\nThat is the last. The answer:\n    python3 -m lessons solution 1\n'


def test_the_solution_stands_beside_the_exercise(project):
    code, out, _ = project.guide('solution', '1', COLUMNS='100')
    assert code == 0
    assert f'{"    return None  # TODO":48} |     return 2 * number\n' in out
    assert f'{"def double(number: int) -> int:":48}   def double(number: int) -> int:\n' in out
    assert max(map(len, out.splitlines())) <= 100


def test_the_solution_is_a_difference_where_there_is_no_room(project):
    code, out, _ = project.guide('solution', '1', COLUMNS='99')
    assert code == 0
    assert '-    return None  # TODO\n+    return 2 * number\n' in out
    (project.lessons / '01_echo' / 'exercise.py').unlink()
    assert '+    return 2 * number\n' in project.guide('solution', '1')[1]
    project.solve()
    assert project.guide('solution', '1')[1] == 'Your file is the solution.\n'


def test_the_difference_of_the_programs_and_its_size(project):
    project.edit('02_lines/server.py', 'echoed', 'returned')
    code, out, _ = project.guide('diff', '2')
    assert code == 0
    assert "-                print(f'echoed {len(data)} bytes')\n+                print(f'returned" in out
    assert out.endswith('\n4 lines were added or removed since chapter 1.\n')
    project.write('02_lines', **{'handlers.py': '"""Handlers."""\nNONE = 0\n'})
    assert project.guide('diff', '2')[1] == f'{out}New is lessons/02_lines/handlers.py, 2 lines.\n'
    assert 'begins from nothing' in project.guide('diff', '1')[1]
    assert project.guide('diff', '0')[1] == 'Chapter 0 has no server and no client.\n'


# What is asked wrongly ...............................................................................

@pytest.mark.parametrize('arguments, complaint', [
    (['jump', '1'], "invalid choice: 'jump'"), (['run'], 'the following arguments are required: N'),
    (['run', '7'], "there is no chapter '7': they go from 0 to 2"), (['hint', ''], "there is no chapter ''"),
    (['solution', '0'], 'chapter 0 has no solution'), (['check', '0'], 'chapter 0 has nothing to check'),
    (['run', '1', '--fast'], 'unrecognized arguments: --fast')])
def test_what_cannot_be_done_is_a_line(project, arguments, complaint):
    code, out, err = project.guide(*arguments)
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert complaint in err


def test_a_chapter_without_a_transcript_cannot_be_run(project):
    project.edit('00_tour/README.md', '```console you', '```text')
    assert project.guide('run', '0') == (2, '', 'chapter 0 has nothing to run\n')


def test_without_chapters_there_is_none_to_name(project):
    for folder in project.lessons.glob('0*'):
        shutil.rmtree(folder)
    assert project.guide('run', '0') == (2, '', "there is no chapter '0': there are none\n")


# The parts alone .....................................................................................

@pytest.mark.parametrize('got, expected', [(2, 2), (b'a', b'a'), ([], [])])
def test_what_is_expected_passes(got, expected):
    assert check.expect('f()', got, expected, 'Build it') is None


def test_bytes_are_shown_in_hex():
    with pytest.raises(AssertionError, match='"Build it"') as caught:
        check.expect('f()', [b'\x12\x34', bytearray(1)], b'', 'Build it')
    assert str(caught.value).splitlines()[2:4] == [
        'got:         [12 34 (2 bytes), 00 (1 byte)]', 'expected:    no bytes']


def test_long_values_lose_their_middle():
    text = check.shown(bytes(range(256)))
    assert len(text) < check.LONGEST + 10
    assert text.startswith('00 01 02') and ' ... ' in text and text.endswith('ff (256 bytes)')


def test_an_exception_is_expected():
    check.expect_raises('f()', lambda: {}['x'], LookupError, 'Build it')
    with pytest.raises(check.Wrong, match='got: +ZeroDivisionError: division by zero\nexpected: +KeyError is raised'):
        check.expect_raises('f()', lambda: 1 / 0, KeyError, 'Build it')


def run_of(expected, printed, was_killed=False):
    run = play.Run('alice', 'python3 x')
    run.expected, run.printed, run.was_killed = expected, printed, was_killed
    return run


@pytest.mark.parametrize('readme, printed', [
    ('took 0.53 s', 'took 1,012.1 s'), ('12.3 times', '9.1 times'), ('at 12:30', 'at 01:02'),
    ('at 12:30:59', 'at 23:01:02'), ('127.0.0.1:8000 left', '127.0.0.1:51234 left'),
    ('group 0a1b2c3d', 'group ffffffff')])
def test_what_differs_from_run_to_run_is_masked(readme, printed):
    assert play.mismatch([run_of([readme], [printed])]) == ''


@pytest.mark.parametrize('readme, printed', [
    ('took 5 s', 'took 6 s'), ('12 times', '13 times'), ('10.0.0.1:80', '10.0.0.1:81'), ('1.5 m', '1.6 m'),
    ('a', 'a b')])
def test_what_is_certain_is_not_masked(readme, printed):
    assert play.mismatch([run_of([readme], [printed])]) == (
        f'alice, python3 x: the README shows {readme!r}, it printed {printed!r}')


def test_equal_neighbours_count_once():
    assert play.mismatch([run_of(['again in 0.1 s', 'up'], ['again in 0.1 s', 'again in 0.2 s', 'up'])]) == ''
    assert play.mismatch([run_of(['a', 'b', 'a'], ['a', 'b'])]) == "alice, python3 x: it did not print 'a'"


def test_what_was_killed_must_only_have_begun_so():
    assert play.mismatch([run_of(['a'], ['a', 'b'], was_killed=True)]) == ''
    assert play.mismatch([run_of(['a'], ['a', 'b'])]) == "alice, python3 x: the README does not show 'b'"
    assert play.mismatch([run_of(['a'], ['b', 'a'], was_killed=True)])


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.setattr(chapters, 'LESSONS', project.lessons)
    return project


@pytest.mark.parametrize('name', ['1', '01', 'echo', '01_echo', 'lessons/01_echo/'])
def test_a_chapter_has_many_names(here, name):
    assert chapters.find(name).folder == here.lessons / '01_echo'


def test_a_scene_says_who_ended_and_what_was_printed(here):
    (scene,) = chapters.find('1').scenes()
    server, alice = play.play(scene)
    assert play.mismatch([server, alice]) == ''
    assert (server.terminal, server.was_killed, alice.terminal, alice.was_killed) == ('server', True, 'alice', False)
    assert alice.printed == ['received 44 bytes in 0.5 s']


def test_a_line_that_the_readme_lacks_is_found(here):
    here.edit('01_echo/client.py', 'with sock:', "print('hello')\nwith sock:")
    here.edit('00_tour/README.md', "print('a tour')", "print('a tour'); print('and more')")
    for number, found in (('0', 'and more'), ('1', 'hello')):
        (scene,) = chapters.find(number).scenes()
        assert found in play.mismatch(play.play(scene))


@pytest.mark.parametrize('step, complaint', [
    (chapters.Step('bob', None, ['hi']), 'bob: nothing was started there'),
    (chapters.Step('bob', '^C', []), 'bob: nothing was started there'),
    (chapters.Step('bob', 'no-such-program x', []), 'bob: no-such-program x cannot be started')])
def test_a_scene_that_cannot_be_played_is_stuck(here, step, complaint):
    with pytest.raises(play.Stuck, match=complaint):
        play.play([step])


def test_a_line_that_comes_again_is_awaited_again(here):
    steps = [chapters.Step('you', """python3 -c "print('hi')" """, ['hi']), chapters.Step('you', None, ['hi'])]
    with pytest.raises(play.Stuck, match='you ended without the line: hi'):
        play.play(steps)


def test_a_terminal_runs_one_command_at_a_time(here):
    slow = """python3 -c "import time; print('a'); time.sleep(0.2); print('b')" """
    shown = []
    play.play([chapters.Step('you', slow, ['a']), chapters.Step('you', """python3 -c "print('c')" """, ['c'])],
              lambda who, line: shown.append(line))
    assert [line for line in shown if len(line) == 1] == ['a', 'b', 'c']


@posix
def test_what_an_interrupted_program_still_prints_is_compared(here):
    server = [chapters.Step('server', 'python3 -m lessons.01_echo.server', ['listening on 127.0.0.1:1']),
              chapters.Step('server', '^C', [])]
    assert play.mismatch(play.play(server)).endswith("the README does not show 'stopped'")


@posix
def test_a_server_that_is_started_anew_is_tapped_anew(here):
    up = chapters.Step('server', 'python3 -m lessons.02_lines.server', ['listening on 127.0.0.1:1'])
    client = 'python3 -m lessons.02_lines.client'
    told = []
    runs = play.play([up, chapters.Step('alice', client, ['received 22 bytes in 0.5 s']),
                      chapters.Step('server', None, ['echoed 22 bytes']), chapters.Step('server', '^C', ['stopped']),
                      chapters.Step('alice', client, ['no server yet, again in 0.1 s']), up,
                      chapters.Step('alice', None, ['received 22 bytes in 0.5 s'])],
                     lambda who, line: told.append((who, line)), tap.Tap)
    assert play.mismatch(runs) == ''
    assert told.count(('alice -> server', '22 bytes, no frame')) == 2


def test_no_thread_is_left(here):
    before = {*threading.enumerate()}
    play.play(chapters.find('2').scenes()[0], make_wire=tap.Tap)
    deadline = time.monotonic() + PATIENCE
    while {*threading.enumerate()} - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not {*threading.enumerate()} - before


def test_bold_text_loses_its_stars_and_a_power_in_code_keeps_them():
    assert screen.plain('**Cap** it: `2 ** n`, **never** `n ** 2`') == 'Cap it: `2 ** n`, never `n ** 2`'


def test_a_block_of_code_may_be_the_last_of_a_hint():
    assert screen.plain('Write:\n\n```text\n2 * n\n```') == 'Write:\n\n    2 * n'


def test_an_exception_that_is_called_error_says_whose_it_is():
    with pytest.raises(check.Wrong, match=r'got: +struct\.error: unpack'):
        check.expect_raises('f()', lambda: struct.unpack('>I', b''), ValueError, 'Build it')
