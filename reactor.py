"""An event loop made by hand: sockets to bytes, time to callbacks.

What it does: waits on many nonblocking sockets in one thread, receives, runs what is due, sends.  What it leaves to
others: what the bytes mean (protocol.py) and who is who (imserver.py).  Names are Netty's for channels and handlers,
asyncio's for the loop.  Everything happens in turns.  A turn, a *tick*, has these five parts, always in this order:

      1 select        sleep until a socket is ready, no longer than the next timer
      2 read          accept, receive, judge, write into buffers; nothing is sent.  Then 1 and 2 again, thrice in all
      3 timers        what is due, and what call_soon queued
      4 before flush  the one place to commit what this tick decided; what waited for that happens now
      5 flush         each channel that was written to sends, once

So a thousand messages of one tick cost one commit and one send a receiver, and nobody is told of what is not committed.
A connection is a `Channel`: a socket, a write buffer, and a `Pipeline` of `Handler`s that a message walks:

       socket --recv-->  head -> h1 -> h2 -> h3 -> tail     inbound: channel_read, channel_active, ...
       socket <--send--  head <- h1 <- h2 <- h3 <- tail     outbound: write, flush, close
"""
from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import itertools
import logging
import queue
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

READ_SIZE = 65_536  # bytes a channel receives in a tick at most, so that one flood starves nobody
SWEEP = 64  # timers in the heap, from which on those that were cancelled are looked for
READ_ROUNDS = 3  # looks of a tick for who is ready: more share a commit.  1.3 times as many messages where it is slow
HIGH_WATER_MARK, LOW_WATER_MARK = 65_536, 32_768  # bytes; not writable above, writable again below; as in Netty
ACCEPTS_A_TICK = 128  # connections: enough for a rush, few enough that those already here wait little
ACCEPT_PAUSE = 1.0  # seconds, as in Netty's ServerBootstrap
CLOSE_TIMEOUT = 5.0  # seconds for the peer to read what a closing channel still has for it
HANDSHAKE_TIMEOUT = 10.0  # seconds for that of TLS
SELECT_LIMIT = 500  # sockets: select() ends at 512 on Windows, elsewhere at descriptor 1,023
MAX_WAIT = 1.0 if sys.platform == 'win32' else 60.0  # seconds of a select; Windows sleeps through a Ctrl-C
logger = logging.getLogger('im.reactor')
Callback = Callable[..., None]


# The loop ............................................................................................
class Timer:  # what `call_later` returns
    __slots__ = ('run',)
    def __init__(self, run: Callback) -> None: self.run = run
    def cancel(self) -> None: self.run = NO_TIMER.run  # it stays in the heap for now: to find it would take long


NO_TIMER = Timer(lambda: None)  # one for all that wait for nothing: idle connections are many


class EventLoop:
    """One thread, one selector.  `selector`: None for the best of this system.  `clock`: seconds that never jump."""
    def __init__(self, selector: selectors.BaseSelector | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.time, self._timers, self._sweep_at = clock, list[tuple[float, int, Timer]](), SWEEP  # seconds
        self._timer_order = itertools.count()  # two timers of one moment run in the order in which they were made
        self._ready: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self.before_flush: list[Callback] = []  # what runs in part 4 of every tick
        self.written: list[Channel] = []  # those that send in part 5
        self.on_tick: Callback = lambda counts, times: None  # told of each tick; see Server._on_tick in imserver.py
        self._jobs, self._worker = queue.SimpleQueue[Any](), None  # for what would block; the thread, once there is one
        self._undo = contextlib.ExitStack()  # what `close` has to do
        self.selector = self._undo.enter_context(selector or selectors.DefaultSelector())
        self._wake_receiver, self._wake_sender = map(self._undo.enter_context, socket.socketpair())
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self.register(self._wake_receiver, EVENT_READ, lambda mask: self._wake_receiver.recv(4096))

    def run(self) -> None:  # until `stop` is called
        self._is_running = True
        while self._is_running:
            self.tick()

    def stop(self) -> None: self._is_running = False  # `run` ends once the tick under way is over

    def tick(self, max_wait: float = MAX_WAIT) -> None:  # one turn, which sleeps `max_wait` seconds at most
        next_timer = self._timers[0][0] - self.time() if self._timers else max_wait
        wait = 0 if self._ready or self.written else min(max_wait, max(0, next_timer))
        events, times, served, rounds = self.selector.select(wait), [self.time()], set[int](), READ_ROUNDS  # 1
        while events:  # 2
            for key, mask in events:
                self._run(key.data, mask)
            served.update(key.fd for key, _ in events)
            rounds -= 1
            events = [event for event in self.selector.select(0) if event[0].fd not in served] if rounds else []
        times.append(now := self.time())
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:  # 3; what these arm anew is the next tick's
            self._run(timer.run)
        for _ in range(len(self._ready)):  # not what is queued meanwhile: that too is the next tick's
            callback, arguments = self._ready.popleft()
            self._run(callback, *arguments)
        times.append(self.time())
        for callback in self.before_flush:  # 4
            self._run(callback)
        times.append(self.time())
        written, self.written = self.written, []
        for channel in written:  # 5
            channel.flush()
        self.on_tick((len(served), len(due), len(written)), (*times, self.time()))

    def _run(self, callback: Callback, *arguments: Any) -> None:  # a bug in it is logged, and the loop goes on
        try:
            callback(*arguments)
        except Exception:
            logger.exception('bug: %r failed', callback)

    def register(self, file: Any, events: int, callback: Callback) -> None:
        """Call `callback(mask)` in every tick in which one of `events` is there (level-triggered); 0: no longer."""
        is_known = file in self.selector.get_map()
        if events and not is_known:
            self.selector.register(file, events, callback)  # OSError: a plain file cannot be watched by epoll
        elif is_known:
            self.selector.modify(file, events, callback) if events else self.selector.unregister(file)

    def call_soon(self, callback: Callback, *arguments: Any) -> None:  # in part 3, of the next tick if it has begun
        self._ready.append((callback, arguments))

    def call_later(self, delay: float, callback: Callback, *arguments: Any) -> Timer:  # run it once, `delay` s from now
        if len(self._timers) >= self._sweep_at:  # twice what was left the last time: it costs little a timer
            self._timers = [entry for entry in self._timers if entry[2].run is not NO_TIMER.run]
            heapq.heapify(self._timers)
            self._sweep_at = max(SWEEP, 2 * len(self._timers))
        timer = Timer(functools.partial(callback, *arguments) if arguments else callback)
        heapq.heappush(self._timers, (self.time() + delay, next(self._timer_order), timer))
        return timer

    def call_soon_threadsafe(self, callback: Callback, *arguments: Any) -> None:
        """`call_soon` for other threads: all that they touch is a queue, and a socket pair that ends the select."""
        self._ready.append((callback, arguments))  # a deque lets two threads append at once
        with contextlib.suppress(OSError):  # full: awake already.  Closed: nobody is left to wake
            self._wake_sender.send(b'\0')

    def run_in_worker(self, function: Callable[[], Any], callback: Callback) -> None:
        """Run what would block in the one other thread, in order, then `callback(result, error)` in the loop."""
        if self._worker is None:  # a daemon: a look-up that hangs must not keep the program from ending
            self._worker = threading.Thread(target=self._work, daemon=True)
            self._worker.start()
        self._jobs.put((function, callback))

    def _work(self) -> None:
        for function, callback in iter(self._jobs.get, None):
            result = error = None
            try:
                result = function()
            except Exception as caught:
                error = caught  # not lost: the callback gets it
            self.call_soon_threadsafe(callback, result, error)

    def add_signal_handler(self, number: int, callback: Callback) -> None:  # it runs in the loop; for the main thread
        # A signal may come just before select sleeps: Python then writes a byte into the wake-up socket itself.
        signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, -1)
        previous = signal.signal(number, lambda *_: self.call_soon_threadsafe(callback))
        self._undo.callback(signal.signal, number, previous)

    def close(self) -> None:  # gives back what it holds; channels and listeners are closed by those who opened them
        self._jobs.put(None)
        self._undo.close()


# The chain of handlers ...............................................................................
INBOUND = 'channel_active channel_read channel_inactive writability_changed user_event exception_caught'.split()
OUTBOUND = 'write flush close'.split()
_LINKS = {event: '_next_' + event for event in INBOUND + OUTBOUND}


class Handler:
    """One link of a pipeline, after Netty's ChannelHandler: override the events that you care for.

        channel_active()         the connection is there
        channel_read(message)    bytes have arrived, or what the handler before made of them
        channel_inactive()       it was given up, by whichever side; nothing more is read; comes once
        writability_changed()    the write buffer rose over its high mark or sank to its low one
        user_event(event)        something that is no input: INPUT_ENDED, READER_IDLE, one of your own
        exception_caught(error)  a handler of this channel raised `error`
        write(message)           somebody writes; the last handler before the socket must hand on bytes
        flush(), close()         part 5 of the tick: what is buffered is about to be sent; somebody closes

    An event ends at the handler that overrides it, unless that calls `super()`.  Those that do not override it are not
    even asked: each link points at the next handler that does."""
    __slots__ = ('channel', *_LINKS.values())
    OVERRIDES: frozenset[str] = frozenset()
    channel: Channel

    def __init_subclass__(cls) -> None:
        cls.OVERRIDES = frozenset(event for event in _LINKS if getattr(cls, event) is not getattr(Handler, event))

    def channel_active(self) -> None: self._next_channel_active.channel_active()
    def channel_read(self, message: Any) -> None: self._next_channel_read.channel_read(message)
    def channel_inactive(self) -> None: self._next_channel_inactive.channel_inactive()
    def writability_changed(self) -> None: self._next_writability_changed.writability_changed()
    def user_event(self, event: Any) -> None: self._next_user_event.user_event(event)
    def exception_caught(self, error: Exception) -> None: self._next_exception_caught.exception_caught(error)
    def write(self, message: Any) -> None: self._next_write.write(message)
    def flush(self) -> None: self._next_flush.flush()
    def close(self) -> None: self._next_close.close()


class _Head(Handler):
    """The end at the socket: what is written here goes into the channel's buffer."""
    __slots__ = ()
    def flush(self) -> None: self.channel._send()
    def close(self) -> None: self.channel._begin_close()

    def write(self, message: bytes) -> None:
        channel = self.channel
        if channel.is_open and message:
            channel._queue.append(message)
            channel.add_buffered(len(message))


class _Tail(Handler):
    """The other end: what no handler cared for."""
    __slots__ = ()
    channel_active = channel_inactive = writability_changed = lambda self: None

    def channel_read(self, message: Any) -> None:
        logger.warning('%s: nobody handles %.100r', self.channel.address, message)

    def user_event(self, event: Any) -> None:
        if isinstance(event, ssl.SSLError):
            logger.info('%s: closed: %s', self.channel.address, event)
        if event is INPUT_ENDED or isinstance(event, ssl.SSLError):
            self.channel.close()

    def exception_caught(self, error: Exception) -> None:
        logger.error('bug: a handler of %s failed, so it is closed', self.channel.address, exc_info=error)
        self.channel.abort()


class Pipeline:
    """The handlers of one channel in their order; they may change at any time, in the middle of an event too."""
    def __init__(self, channel: Channel) -> None:
        self.head, self.tail, self._handlers = _Head(), _Tail(), list[Handler]()
        self._change(channel, 0, 0, (self.head, self.tail))

    def add_last(self, *handlers: Handler) -> None:  # just before the tail
        self._change(self.head.channel, len(self._handlers) - 1, 0, handlers)

    def replace(self, old: Handler, *new: Handler) -> None:  # with no `new`: remove it
        self._change(self.head.channel, self._handlers.index(old), 1, new)

    def _change(self, channel: Channel, index: int, count: int, new: tuple[Handler, ...]) -> None:
        self._handlers[index:index + count] = new
        for handler in new:
            handler.channel = channel
        # A removed handler keeps its links, so that the event it is in the middle of can go on.
        for number, link, target in _links_of(tuple(map(type, self._handlers))):
            setattr(self._handlers[number], link, None if target is None else self._handlers[target])


@functools.cache
def _links_of(kinds: tuple[type[Handler], ...]) -> list[tuple[int, str, int | None]]:
    """Which link of which handler points to which: for each event the next that overrides it.  Few `kinds`."""
    found = []
    for events, step in (INBOUND, -1), (OUTBOUND, 1):  # walk from where these end to their begin
        nearest: dict[str, int | None] = dict.fromkeys(events)
        for number in range(len(kinds))[::step]:
            found += [(number, _LINKS[event], nearest[event]) for event in events]
            nearest |= dict.fromkeys(kinds[number].OVERRIDES & nearest.keys(), number)
    return found


# A connection ........................................................................................
INPUT_ENDED = object()  # user event: the peer shut down its sending side (Netty's ChannelInputShutdownEvent)
READER_IDLE = object()  # user event: the peer has shown no life for the time allowed


class Channel:
    """A nonblocking socket with a write buffer and a pipeline.

        open --close()--> closing --all is sent, then the peer's end of file; or CLOSE_TIMEOUT--> closed
          `-------------------- abort(), or an error of the socket ---------------------------------^
    While closing nothing more is handled or taken to write; what is buffered still goes out.  `channel_inactive` is
    fired when it is no longer open.  What a handler raises ends in `exception_caught`, always."""
    def __init__(self, loop: EventLoop, sock: socket.socket, initialize: Callback,
                 on_closed: Callback = lambda channel: None) -> None:
        self.loop, self.is_open, self.is_writable = loop, True, True
        self.is_closed = self.is_reading = self.input_ended = self._will_end = False
        self.address = 'gone'  # or 'host:port' of the peer
        self.sent = self.buffered = 0  # bytes: all there ever were; those written and not sent yet
        self.alive_at = loop.time()  # when the peer last showed life: sent, or made room for more by reading
        self._socket, self._interest = sock, 0  # and what the selector watches it for
        self._pauses, self._queue = frozenset[object](), list[bytes]()
        self._unsent: bytes | memoryview = b''  # what a short send left over; it goes before the queue
        self._is_written, self._timeout, self._on_closed = False, NO_TIMER, on_closed
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # that a peer is gone shows later
            self.address = ':'.join(map(str, sock.getpeername()[:2]))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no Nagle: a tick gathers already
        self.pipeline = Pipeline(self)
        self.run(initialize, self)
        self._update_interest()
        if self.is_open:
            self.run(self.pipeline.head.channel_active)

    def write(self, message: Any) -> None:
        """Send `message` through the pipeline.  Once the channel is not open it is dropped."""
        try:  # as `run` does, but nothing is called as often
            self.pipeline.tail._next_write.write(message)
        except Exception as error:
            self._on_bug(error)

    def close(self) -> None: self.run(self.pipeline.tail.close)  # sends what is buffered, for CLOSE_TIMEOUT s at most

    def flush(self) -> None:  # part 5 of a tick, called by the loop
        self._is_written = False
        self.run(self.pipeline.tail._next_flush.flush)

    def abort(self, error: OSError | None = None) -> None:
        """Let go at once; what is buffered is lost.  `error`: the socket's, which makes it so."""
        if error:
            logger.info('%s is gone: %s', self.address, error)
        if not self.is_closed:
            was_open, self.is_open, self.is_closed = self.is_open, False, True
            self._timeout.cancel()
            self._update_interest()
            self._socket.close()
            if was_open:
                self.run(self.pipeline.head.channel_inactive)
            self._on_closed(self)

    def run(self, callback: Callback, *arguments: Any) -> None:  # what it raises is this channel's affair
        try:
            callback(*arguments)
        except Exception as error:
            self._on_bug(error)

    def _on_bug(self, error: Exception) -> None:
        try:  # told from the head on; Netty starts at the handler that failed
            self.pipeline.head.exception_caught(error)
        except Exception as error:
            self.pipeline.tail.exception_caught(error)

    def pause_reading(self, reason: object) -> None:
        """Let the peer's bytes wait in the kernel until every reason that was given is taken back."""
        self._pauses |= {reason}
        self._update_interest()

    def resume_reading(self, reason: object) -> None:
        if reason in self._pauses:
            self._pauses -= {reason}
            self.alive_at = self.loop.time()  # its silence so far was our doing
            self._update_interest()
            if self._will_end:
                self.loop.call_soon(self.end_input)  # behind what waited

    def end_input(self) -> None:  # the peer sends no more: told now or, if somebody pauses, once what waits was read
        self._will_end = True
        if self.is_open and not (self._pauses or self.input_ended):
            self.input_ended = True
            self._update_interest()  # end of file stays readable for ever
            self.run(self.pipeline.head.user_event, INPUT_ENDED)

    def _update_interest(self) -> None:
        """Tell the selector what to wake us for: input only when it is wanted, room only after a short send."""
        self.is_reading = self.is_open and not self._pauses and not self.input_ended
        lingers = not (self.is_open or self.is_closed or self.buffered or self.input_ended)
        wanted = EVENT_READ * (self.is_reading or lingers) | EVENT_WRITE * bool(self._unsent and not self.is_closed)
        if wanted != self._interest:
            self._interest = wanted
            self.loop.register(self._socket, wanted, self._on_ready)

    def _on_ready(self, mask: int) -> None:
        mask &= self._interest  # something earlier in this tick may have paused or closed us: then it is stale
        self.alive_at = self.loop.time() if mask else self.alive_at
        if mask & EVENT_WRITE:
            self.add_buffered(0)
        if mask & EVENT_READ:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:  # readiness is a hint: select(2) says that Linux may drop the data after it
            return
        except OSError as error:
            return self.abort(error)
        if data and self.is_open:
            self.run(self.pipeline.head._next_channel_read.channel_read, data)
        elif not data:
            self.end_input() if self.is_open else self.abort()  # all is done

    def add_buffered(self, count: int) -> None:
        """So many more bytes wait here, or in a handler, to be sent at the end of this tick."""
        self.buffered += count
        if not self._is_written:
            self._is_written = True
            self.loop.written.append(self)
        if self.buffered > HIGH_WATER_MARK:
            self._check_water_marks()

    def _check_water_marks(self) -> None:
        mark = HIGH_WATER_MARK if self.is_writable else LOW_WATER_MARK  # two marks: no flutter around one
        if self.is_writable != (self.buffered <= mark):
            self.is_writable = not self.is_writable
            self.loop.call_soon(self.run, self.pipeline.head.writability_changed)  # not now, inside a write

    def _send(self) -> None:
        if self.is_closed:
            return
        rest, data = self._unsent, self._unsent or b''.join(self._queue)
        if not rest:
            self._queue.clear()
        try:
            sent = self._socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.loop.call_soon(self.abort, error)  # not now: handlers run in parts 2 to 4
            return
        self.sent, self.buffered = self.sent + sent, self.buffered - sent
        if not (rest or self.buffered) and self.is_open and self.is_writable:
            return  # mostly that was all
        self._unsent = memoryview(data)[sent:] or b''  # a view, so no byte is copied twice; none is kept
        if self._queue and not self._unsent:  # a rest went out; what was queued behind it goes in the next tick
            self.add_buffered(0)
        self._check_water_marks()
        if not (self.is_open or self.buffered):
            # Say so, and wait for the peer's end of file: to close with its bytes unread would make the kernel send a
            # reset, which may destroy what the peer has yet to read (RFC 1122, section 4.2.2.13).
            with contextlib.suppress(OSError):  # gone already
                self._socket.shutdown(socket.SHUT_WR)
            if self.input_ended:
                return self.abort()
        self._update_interest()

    def _begin_close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._timeout = self.loop.call_later(CLOSE_TIMEOUT, self.abort)
            self.add_buffered(0)
            self._update_interest()
            self.run(self.pipeline.head.channel_inactive)


class IdleStateHandler(Handler):
    """Fires READER_IDLE after `seconds` without life from the peer (Netty's class); while reading is paused none count.
    One timer, armed lazily: a read only stores the time (`alive_at`), the timer looks when it fires."""
    def __init__(self, seconds: float) -> None:
        self._seconds, self._timer = seconds, NO_TIMER

    def channel_active(self) -> None:
        if self.channel.is_open:  # a handler before may have closed it
            self._timer = self.channel.loop.call_later(self._seconds, self._look)
        super().channel_active()

    def channel_inactive(self) -> None:
        self._timer.cancel()
        super().channel_inactive()

    def _look(self) -> None:
        loop, channel = self.channel.loop, self.channel
        silence = loop.time() - channel.alive_at if channel.is_reading else 0.0
        is_idle = silence >= self._seconds
        self._timer = loop.call_later(self._seconds - (0.0 if is_idle else silence), self._look)
        if is_idle:
            channel.run(super().user_event, READER_IDLE)


class TlsHandler(Handler):
    """TLS, next to the socket: head <-> _incoming, _outgoing <-> _tls <-> the next handler, which is encrypted for once
    a tick.  What goes wrong is a user event, an ssl.SSLError of one line (an ssl.SSLCertVerificationError if it is the
    certificate).  `server_name`: of the server, for a client to check.  `close` in the handshake drops what waits."""
    __slots__ = ('_incoming', '_outgoing', '_tls', '_plain', '_is_ready')

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        context.options |= ssl.OP_NO_RENEGOTIATION  # then writing never waits for reading; TLS 1.3 has none
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_name is None, server_name)
        self._plain, self._is_ready = list[bytes](), False  # ready: to encrypt

    def channel_active(self) -> None:
        late = ssl.SSLError(1, f'TLS: no handshake in {HANDSHAKE_TIMEOUT:g} s')
        self.channel._timeout = self.channel.loop.call_later(HANDSHAKE_TIMEOUT, self.channel.run, self._end, late)
        self.channel_read(b'')  # a client speaks first
        super().channel_active()

    def channel_read(self, data: bytes) -> None:
        self._incoming.write(data)
        plain, end = [], None
        try:
            if not self._is_ready:
                self._tls.do_handshake()
                self.channel._timeout.cancel()
                self._is_ready = True
                self.channel.add_buffered(0)  # what was written meanwhile goes out
            while piece := self._tls.read(READ_SIZE):
                plain.append(piece)
            end = INPUT_ENDED  # close_notify.  An end without it is one too: a frame knows its length
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            reason = getattr(error, 'verify_message', None) or (error.reason or 'broken').replace('_', ' ').lower()
            end = type(error)(1, f'TLS: {reason}')
        super().write(self._outgoing.read())  # our part of the handshake, or an alert: why
        if plain:  # in one, as without TLS: nothing comes after the handler that closes
            super().channel_read(b''.join(plain))
        if end:
            self._end(end)

    def _end(self, event: Any) -> None:
        if self.channel.is_open:
            self.channel._timeout.cancel()
            if event is INPUT_ENDED:
                return self.channel.end_input()
            self._is_ready = False
            self.channel.pause_reading(self)  # for good, so this comes once: no end of file comes after it
            super().user_event(event)

    def write(self, message: bytes) -> None:
        if self.channel.is_open:
            self._plain.append(message)
            self.channel.add_buffered(len(message))

    def flush(self) -> None:
        if self._is_ready:
            self.channel._is_written = True  # what it writes goes out now, and needs no flush in the next tick
            self._encrypt()
            self.channel._is_written = False
        super().flush()

    def _encrypt(self) -> None:
        data, self._plain = memoryview(b''.join(self._plain)), []
        self.channel.buffered -= len(data)
        while data and self._is_ready:
            data = data[self._tls.write(data):]
        super().write(self._outgoing.read())

    def close(self) -> None:
        self._encrypt()
        with contextlib.suppress(ssl.SSLError):  # it would wait for the other's close_notify; ours is on its way
            self._tls.unwrap()
        super().write(self._outgoing.read())
        super().close()


# Accepting connections ...............................................................................
class Listener:
    """Accepts connections and makes channels of them; `initialize(channel)` fills the pipeline of each.  Raises OSError
    when the address cannot be had.  Callers beyond `max_channels` are closed at once.  One for whom no descriptor is
    left waits in the kernel's queue, and accepting rests: select would report it in a busy loop."""
    def __init__(self, loop: EventLoop, host: str, port: int, initialize: Callback, max_channels: int = 2**31) -> None:
        self.channels: set[Channel] = set()
        self._loop, self._initialize, self._pause = loop, initialize, NO_TIMER
        limit = SELECT_LIMIT if isinstance(loop.selector, selectors.SelectSelector) else sys.maxsize
        self._max_channels = min(max_channels, limit)
        self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET,
                                            backlog=socket.SOMAXCONN)
        self._socket.setblocking(False)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]  # for port 0: the one that was free
        self._watch(EVENT_READ)

    def _watch(self, events: int) -> None: self._loop.register(self._socket, events, self._on_ready)

    def close(self) -> None:  # accept no more.  The channels stay
        self._pause.cancel()
        self._watch(0)
        self._socket.close()

    def _on_ready(self, mask: int) -> None:
        for _ in range(ACCEPTS_A_TICK):
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if self._socket.fileno() < 0:  # closed, earlier in this tick
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.warning('accepting rests for %g s: %s', ACCEPT_PAUSE, error)
                    self._pause = self._loop.call_later(ACCEPT_PAUSE, self._watch, EVENT_READ)
                    return self._watch(0)
                logger.info('a caller was gone before it was accepted: %s', error)
            else:
                self._open(sock)

    def _open(self, sock: socket.socket) -> None:
        if len(self.channels) >= self._max_channels:
            logger.warning('refused a caller: %d connections are open', len(self.channels))
            return sock.close()
        channel = Channel(self._loop, sock, self._initialize, self.channels.discard)
        self.channels.update([] if channel.is_closed else [channel])
