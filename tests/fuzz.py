"""The project's fuzz test: the fuzzer of chapter 13 on protocol.py, for as long as you like.

    python3 -m tests.fuzz                   until Ctrl-C, or until it finds something
    python3 -m tests.fuzz --seconds 60      for a minute; --seed 2: other inputs

What it does: makes valid frames (`Maker`), knows how to damage them (FRAME_WAYS), says what protocol.py has promised
for all bytes (`check_protocol`).  test_fuzz.py runs the same with a fixed seed, so many inputs; test_garbage.py takes
frames and damage from here.  A finding is printed as a test, for test_fuzz.py.
"""
from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from importlib import import_module
from random import Random

import protocol
from protocol import (
    HEADER_SIZE, INT_MAX, INT_MIN, MAGIC_BYTES, MAX_BODY, MAX_BODY_BEFORE_LOGIN, MAX_BODY_CLIENT, PACKETS, REQUESTS,
    RESPONSES, VERSIONS, BadPacket, FrameDecoder, ProtocolError, decode, describe, encode)

fuzzer = import_module('lessons.13_coverage_guided_tests.fuzzer')


# How frames are damaged ...............................................................................................

TOKENS = (b'null', b'true', b'-1', b'0.5', b'1e999', b'NaN', b'-Infinity', b'9' * 25, b'9' * 5000, b'{}', b'[]', b'{',
          b'}', b'[', b']', b'"', b'\\', b',', b':', b'\\ud800', b'\\u0000', b'\x00', b'\xff', b'\xed\xa0\x80',
          b'\xef\xbb\xbf', b'[' * 17, b'{"x":' * 17, b'[' * 3000, b'"clientSeq":', b'"messageId":1,', b'"message":{},',
          MAGIC_BYTES, MAGIC_BYTES[:2], b'\r\n', b'GET / HTTP/1.1\r\n\r\n')
LENGTHS = (0, 1, 2, 10, 255, 256, MAX_BODY_BEFORE_LOGIN, MAX_BODY_BEFORE_LOGIN + 1, MAX_BODY, MAX_BODY + 1,
           MAX_BODY_CLIENT + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def insert_token(random, data, start, end):
    data[start:end] = random.choice(TOKENS)


def edit_header(random, data, start, end):
    """Change the magic, the version, the serializer or the command of one of the frames."""
    if frames := [match.start() for match in re.finditer(re.escape(MAGIC_BYTES), data)]:
        place = random.choice(frames) + random.choice((0, 3, 4, 5, 6, 6, 6, 6))
        data[place:place + 1] = random.choice((bytes([random.randrange(32)]), random.randbytes(1)))


def edit_length(random, data, start, end):
    """Change the length of one of the frames: to a borderline value, or by a little."""
    if frames := [match.start() for match in re.finditer(re.escape(MAGIC_BYTES), data)]:
        place = random.choice(frames) + 7
        near = max(0, int.from_bytes(data[place:place + 4], 'big') + random.randint(-3, 3))
        data[place:place + 4] = random.choice((near & 0xFFFFFFFF, random.choice(LENGTHS))).to_bytes(4, 'big')


def damage_body(random, data, start, end):
    """Put a token into the body of one of the frames, and make its length right again."""
    if frames := [match.start() for match in re.finditer(re.escape(MAGIC_BYTES), data)]:
        begin = random.choice(frames) + HEADER_SIZE
        length = int.from_bytes(data[begin - 4:begin], 'big')
        if begin + length <= len(data):
            place = begin + random.choice((0, random.randrange(length + 1)))
            data[place:place] = token = random.choice(TOKENS)
            data[begin - 4:begin] = (length + len(token)).to_bytes(4, 'big')


# Each way is as likely as it is named often.
FRAME_WAYS = (*fuzzer.WAYS, fuzzer.flip_bit, insert_token, damage_body, damage_body, edit_header, edit_length)


def mutate_frames(random, stream):
    return fuzzer.mutate(random, stream, FRAME_WAYS)


# Valid packets ........................................................................................................

class Maker:
    """Makes valid packets of every kind: `names` stand in it as users, `groups` as groups."""

    def __init__(self, random, names=('张三', 'bob'), groups=('9f8e7d6c',)):
        self.random, self.names, self.groups = random, names, groups
        self.seq = itertools.count(1)

    def packet(self, kind):
        return kind(**{f.attribute: self._value(f) for f in kind.FIELDS})

    def frame(self, command, version):
        return encode(self.packet(PACKETS[command]), version)

    def stream(self, commands, versions=VERSIONS):
        """One to three frames."""
        version = self.random.choice(versions)
        known = [c for c in commands if version == 2 or c <= protocol.LAST_COMMAND_OF_VERSION_1]
        return b''.join(self.frame(self.random.choice(known), version) for _ in range(self.random.choice((1, 1, 2, 3))))

    def _value(self, f):
        if not f.required and f.since == 1 and self.random.random() < 0.4:
            return None
        if f.many:
            return [self._one(f) for _ in range(self.random.choice((0, 1, 2)))]
        return self._one(f)

    def _one(self, f):
        pick = self.random.choice
        if f.attribute == 'client_seq':
            return next(self.seq)
        if f.kind is bool:
            return pick((True, False))
        if f.kind is int:
            return pick((0, 1, 7, 20, 1_500_000_000_000, INT_MAX, INT_MIN))
        if f.kind is not str:
            return self.packet(f.kind)
        if 'user' in f.attribute:
            return pick(self.names)
        if f.attribute.endswith('group_id'):
            return pick(self.groups)
        return pick(('hi', '', '"\\\n\x00', '你好 😀\u2028'))


# What is promised .....................................................................................................

ROLES = [(version, commands) for version in (None, *VERSIONS) for commands in (REQUESTS, RESPONSES)]


def cut_frames(pieces, max_body):
    """Feed one piece after the other; return the frames and the class of the error that ended it, or None."""
    decoder, frames = FrameDecoder(max_body), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            frames.extend(decoder)  # keeps those before the error
    except ProtocolError as error:
        return frames, type(error)
    return frames, None


def read(frames):
    """Return all that `decode` makes of `frames`, for each role and version: (packet, version, commands)."""
    found = []
    for frame, (version, commands) in itertools.product(frames, ROLES):
        try:
            found.append((decode(frame, version, commands), version or frame[4], commands))
        except BadPacket as error:
            assert error.command == frame[6] and error.code in protocol.ERROR_CODES
    return found


def check_protocol(stream):
    """Raise when protocol.py does not do with these bytes what it promises for all."""
    frames, error = cut_frames([stream], MAX_BODY_BEFORE_LOGIN)
    assert stream.startswith(b''.join(frames))
    places = sorted((3, 14, len(stream) // 2))  # in a magic number, in a body, anywhere
    pieces = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)])]
    assert cut_frames(pieces, MAX_BODY_BEFORE_LOGIN) == (frames, error)
    for packet, version, commands in read(frames):
        assert decode(encode(packet, version), version, commands) == packet
    for frame in frames:
        assert len(describe(frame).splitlines()) == 6


# The command ..........................................................................................................

KEEP = 'Keep it: in tests/test_fuzz.py, below "What the fuzzer has found", under a name that says what has to hold.'
INPUTS_A_ROUND = 1_000
KINDS = [(command, version) for version in VERSIONS for command in sorted(PACKETS)
         if version == 2 or command <= protocol.LAST_COMMAND_OF_VERSION_1]


def protocol_fuzzer(seed):
    """A fuzzer that begins with one valid frame of each kind and version."""
    maker = Maker(Random(seed))
    corpus = [maker.frame(command, version) for command, version in KINDS]
    return fuzzer.Fuzzer(check_protocol, [protocol.__file__], seed, corpus, FRAME_WAYS)


def summary(hunt, seconds):
    """What was reached.  Kept: the inputs that reached something new, some of those to begin with among them."""
    return (f'{hunt.inputs:,} inputs in {seconds:.1f} s, {hunt.inputs / (seconds or 1):,.0f} a second; of protocol.py '
            f'{len({line for _, line in hunt.arcs})} lines and {len(hunt.arcs)} arcs, '
            f'{len(hunt.corpus) - len(KINDS)} inputs kept')


def go_on(hunt, seconds):
    """Run it for so long; return whether it found something."""
    began, told = time.monotonic(), 0
    try:
        while (passed := time.monotonic() - began) < seconds and not hunt.run(INPUTS_A_ROUND):
            if passed > told + 10:
                print(summary(hunt, passed), flush=True)
                told = passed
    except KeyboardInterrupt:
        pass
    print(summary(hunt, time.monotonic() - began))
    return hunt.error is not None


def main(arguments=None):
    parser = argparse.ArgumentParser(prog='python3 -m tests.fuzz', description='looks for bugs in protocol.py')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='how long; without it until Ctrl-C')
    parser.add_argument('--seed', type=int, default=int(time.time()), help='other inputs; without it by the clock')
    options = parser.parse_args(arguments)
    print(f'seed {options.seed}', flush=True)
    hunt = protocol_fuzzer(options.seed)
    if not go_on(hunt, options.seconds):
        print('no error')
        return 0
    print(f'\n{type(hunt.error).__name__}: {hunt.error}\n{KEEP}\n')
    print(fuzzer.as_test(check_protocol, fuzzer.shrunk(check_protocol, hunt.finding, type(hunt.error))), end='')
    return 1


if __name__ == '__main__':
    sys.exit(main())
