"""Runs the tests: `python3 -m tests`, with what they need in a virtual environment of their own, `.venv`.

    python3 -m tests               all tests under branch coverage, most in two halves side by side; fails when too little
                                   is covered
    python3 -m tests -k frames     any arguments are pytest's; then coverage is not judged
    python3 -m tests --matrix      all tests on each Python 3.10 to 3.13 found here, those of the reactor and of the
                                   whole system also with the selectors poll and select
"""
from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements-dev.txt'
# Percent of statements and branches that the tests must reach.
LEAST_COVERAGE = {'protocol.py': 95, 'reactor.py': 95, 'store.py': 95,
                  'imserver.py': 90, 'imclient.py': 90, 'console.py': 90}
# They compare times, and run before the others: alone.
ALONE = ['tests/test_slow_peers.py']
# The second half of the others: it runs beside the first, on a second core.
BESIDE = [f'tests/test_{name}.py' for name in (
    'chat_chapters', 'console', 'fuzz', 'guide', 'lesson_runs', 'lessons', 'protocol', 'store', 'style', 'terminal')]
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
SELECTORS = ('poll', 'select')
SELECTOR_TESTS = ('tests/test_reactor.py', 'tests/test_tls_handler.py', 'tests/test_imserver.py', 'tests/test_delivery.py',
                  'tests/test_imclient.py', 'tests/test_system.py')


def environment(python: str, folder: Path) -> str:
    """Return the interpreter of a virtual environment that has what requirements-dev.txt names; make it if need be."""
    interpreter = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    stamp = folder / 'requirements-dev.txt'
    if not stamp.exists() or stamp.read_text(encoding='utf-8') != REQUIREMENTS.read_text(encoding='utf-8'):
        if python == sys.executable:
            venv.create(folder, with_pip=True, clear=True)
        else:
            subprocess.run([python, '-m', 'venv', '--clear', folder], check=True)
        subprocess.run([interpreter, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-r', REQUIREMENTS],
                       check=True)
        shutil.copy(REQUIREMENTS, stamp)
    return str(interpreter)


def run(*command: str, **variables: str) -> int:
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode


def forget_coverage(*patterns: str) -> None:
    for pattern in patterns:
        for file in ROOT.glob(pattern):
            file.unlink()


def with_coverage() -> int:
    python = environment(sys.executable, ROOT / '.venv')
    forget_coverage('.coverage', '.coverage.*')
    command = (python, '-m', 'coverage', 'run', '-m', 'pytest')
    failed = run(*command, *ALONE)
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen([*command, *BESIDE], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT) as beside:
            failed |= run(*command, *(f'--ignore={file}' for file in ALONE + BESIDE))
        failed |= beside.returncode
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()
    run(python, '-m', 'coverage', 'combine', '-q')
    forget_coverage('.coverage.*')  # what a process that a test killed had half written
    run(python, '-m', 'coverage', 'report')
    for module, least in LEAST_COVERAGE.items():
        judge = (python, '-m', 'coverage', 'report', f'--include={module}', f'--fail-under={least}')
        if subprocess.run(judge, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            print(f'{module}: less than {least} % is covered')
            failed = 1
    return failed


def find_python(version: str) -> str | None:
    """Return the path of that Python: of this process, on the PATH, or one that pyenv has."""
    if sys.version.startswith(version + '.'):
        return sys.executable
    if (found := shutil.which(f'python{version}')) and run(found, '-c', '') == 0:
        return found
    root = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    return max(glob.glob(f'{root}/versions/{version}.*/bin/python'), default=None)


def matrix() -> int:
    failures = []
    for version in PYTHONS:
        if (found := find_python(version)) is None:
            print(f'Python {version}: not found here')
            continue
        python = environment(found, ROOT / f'.venv-{version}')
        for selector in ('', *SELECTORS):
            print(f'Python {version}, selector {selector or "default"}', flush=True)
            if run(python, '-m', 'pytest', *(SELECTOR_TESTS if selector else ()), IM_SELECTOR=selector):
                failures.append(f'{version} {selector}')
    print('failed: ' + ', '.join(failures) if failures else 'all passed')
    return bool(failures)


def main(arguments: list[str]) -> int:
    if arguments == ['--matrix']:
        return matrix()
    if arguments:
        return run(environment(sys.executable, ROOT / '.venv'), '-m', 'pytest', *arguments)
    return with_coverage()


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
