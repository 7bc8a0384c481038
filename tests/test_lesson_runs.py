"""What the lessons do when they run: transcripts, exercises, failures shown on a bare Python, servers that idle.

`-k 04_sticky` runs one chapter.  Chapters run side by side, ahead of the tests that ask how it went.
"""
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest

from lessons import play
from lessons.chapters import ROOT, SECTIONS, Chapter, chapters

pytestmark = pytest.mark.usefixtures('no_coverage')
CHAPTERS = chapters()
AT_ONCE = 4  # most of what runs waits most of the time
TIME_LIMIT = 30  # seconds for each process
LEAST_TESTS = 5
WRONG = ('AssertionError', 'assert ', 'lessons.check.Wrong')  # how pytest begins what it says of an assertion
IDLE_TIME, IDLE_CPU = 2.0, 0.1  # seconds that servers are watched, and what each may use of them


@pytest.fixture(scope='module', autouse=True)
def a_database_of_its_own():
    """Chapter 11's transcripts make `chat.db` in the folder where they run, ours: a reader's stays as it was."""
    saved = {path: path.read_bytes() for path in ROOT.glob('chat.db*')}
    for path in saved:
        path.unlink()
    yield
    for path in ROOT.glob('chat.db*'):
        path.unlink()
    for path, data in saved.items():
        path.write_bytes(data)


def run(*arguments, **variables):
    """Run Python with these arguments, to its end."""
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=os.environ | variables,
                          stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8', errors='replace',
                          timeout=TIME_LIMIT)


# What runs in each chapter: a job gives a sentence for each thing that is wrong .......................

def its_transcripts_are_true(chapter):
    for section in SECTIONS:
        for number, scene in enumerate(chapter.scenes(section), 1):
            try:
                difference = play.mismatch(play.play(scene))
            except play.Stuck as error:
                difference = str(error)
            if difference:
                yield f'{chapter.name}, "{section}", scene {number}: {difference}'


def verdicts(chapter, file):
    """What pytest says of each test of a chapter's exercise, run on that file: '', or how it failed."""
    with TemporaryDirectory() as folder:
        report = Path(folder, 'report.xml')
        done = run('-m', 'pytest', chapter.folder / 'test_exercise.py', f'--junitxml={report}',
                   LESSON_FILE=str(chapter.folder / file), PYTEST_DISABLE_PLUGIN_AUTOLOAD='1')
        assert done.returncode in (0, 1), f'{chapter.name}: {(done.stdout + done.stderr)[-2000:]}'
        cases = list(ElementTree.parse(report).iter('testcase'))
    return {case.get('name'): ''.join(f'{part.tag}: {part.get("message")}' for part in case
                                      if part.tag in ('failure', 'error', 'skipped')) for case in cases}


def its_stub_fails_by_assertions(chapter):
    found = verdicts(chapter, 'exercise.py')
    wrong = [name for name, said in found.items() if said.removeprefix('failure: ').startswith(WRONG)]
    if len(found) < LEAST_TESTS:
        yield f'{chapter.name}: {len(found)} tests, fewer than {LEAST_TESTS}'
    if 2 * len(wrong) < len(found):
        yield f'{chapter.name}: the stub fails {len(wrong)} of {len(found)} tests by an assertion, not half of them'
    yield from (f'{chapter.name}: {name}: {said}' for name, said in found.items()
                if said.startswith('error: ') or 'ImportError' in said or 'NotImplementedError' in said)


def its_solution_passes(chapter):
    found = verdicts(chapter, 'solution.py')
    yield from (f'{chapter.name}: {name}: {said}' for name, said in found.items() if said)


def it_shows_failure_and_picture_on_a_bare_python(chapter):
    """No package is in reach, no variable is heeded, a warning is an error."""
    for program in ('see_it_fail', 'picture'):
        if (chapter.folder / f'{program}.py').exists():
            done = run('-S', '-E', '-X', 'utf8', '-W', 'error', '-m', f'lessons.{chapter.name}.{program}')
            if done.returncode or done.stderr or not done.stdout:
                yield f'{chapter.name}.{program}: exit code {done.returncode}, {done.stderr or "prints nothing"}'


JOBS = (its_transcripts_are_true, its_stub_fails_by_assertions, its_solution_passes,
        it_shows_failure_and_picture_on_a_bare_python)


@pytest.fixture(scope='module')
def ahead(request, no_coverage):
    """The jobs of all tests that were selected, under way: (job, chapter) -> future of what is wrong."""
    chosen = [item.callspec.params for item in request.session.items
              if item.path == Path(__file__) and item.originalname == test_a_chapter.__name__]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {(given['job'], given['chapter']): pool.submit(lambda given: list(given['job'](given['chapter'])), given)
               for given in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize('job', JOBS, ids=lambda job: job.__name__)
@pytest.mark.parametrize('chapter', CHAPTERS, ids=lambda chapter: chapter.name)
def test_a_chapter(chapter, job, ahead):
    problems = ahead[job, chapter].result()
    assert not problems, '\n'.join(['', *problems])


TEST = """from lessons.check import expect
from lessons.conftest import exercise
import pytest

@pytest.mark.parametrize('number', range(5))
def test_it(exercise, number):
    expect('two()', exercise.two(), 2, 'Build it')
"""


@pytest.mark.parametrize('stub, said', [
    ('def two(): return None', []),
    ('def two(): return 2', ['00_x: the stub fails 0 of 5 tests by an assertion, not half of them']),
    ('def two(): return 1 / 0', ['00_x: the stub fails 0 of 5 tests by an assertion, not half of them']),
    ('import no_such_module', ['00_x: the stub fails 0 of 5', *['ModuleNotFoundError'] * 5]),
])
def test_a_stub_is_judged(tmp_path, stub, said):
    chapter = Chapter(tmp_path / '00_x')
    chapter.folder.mkdir()
    for file, text in (('test_exercise.py', TEST), ('exercise.py', stub)):
        (chapter.folder / file).write_text(text, encoding='utf-8')
    problems = list(its_stub_fails_by_assertions(chapter))
    assert len(problems) == len(said) and all(part in problem for part, problem in zip(said, problems)), problems


# Servers that have nothing to do .....................................................................

def cpu_time(process):
    """The seconds that a process has computed so far."""
    fields = Path(f'/proc/{process.pid}/stat').read_text(encoding='utf-8').rpartition(') ')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')  # in user and in system mode


def connect(process):
    """Connect to a server that has just been started; its first line says where."""
    line = process.stdout.readline()
    assert line.startswith('listening on 127.0.0.1:'), f'{process.args}: its first line is {line!r}'
    return socket.create_connection(('127.0.0.1', int(line.rpartition(':')[2])))


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='only Linux says here what a process has computed')
def test_a_server_with_an_idle_client_computes_nothing():
    commands = {chapter.name: ['-m', f'lessons.{chapter.name}.server', '--port', '0']
                for chapter in CHAPTERS if 'server.py' in chapter.programs}
    commands['a busy loop'] = ['-c', 'while True: pass']
    with ExitStack() as stack:
        servers = {}
        for name, command in commands.items():
            servers[name] = stack.enter_context(subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                encoding='utf-8'))
            stack.callback(servers[name].kill)
        for name, server in servers.items():
            if name != 'a busy loop':
                stack.enter_context(connect(server))
        time.sleep(0.5)  # what it does for a new connection is not counted
        before = {name: cpu_time(server) for name, server in servers.items()}
        time.sleep(IDLE_TIME)
        busy = {name for name, server in servers.items() if cpu_time(server) - before[name] > IDLE_CPU}
    assert busy == {'a busy loop'}
