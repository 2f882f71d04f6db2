"""`thread`: a vectorised gather on a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from ctrkit.data.store import Int64Array, Store
from ctrkit.data.store_loader import Batch, StoreLoader, batch_tensors

#: batches that the thread keeps ready
_THREAD_DEPTH = 2
_POLL_S = 0.1
_JOIN_S = 30.0


class _Failure:
    """An exception on its way from the thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class ThreadLoader(StoreLoader):
    """Vectorised gather on a background thread: no processes, so nothing to deadlock."""

    def _batches(self) -> Iterator[Batch]:
        ready: queue.Queue[Batch | _Failure | None] = queue.Queue(
            self.cell.prefetch or _THREAD_DEPTH
        )
        stop = threading.Event()
        thread = threading.Thread(
            target=_fill,
            name="ctrkit-loader",
            args=(ready, stop, self.store, self.order(), list(self.slices())),
            kwargs={"history_length": self.history_length, "pin": self.cell.pin},
        )
        thread.start()
        try:
            while True:
                batch = _next_of(ready, thread)
                if batch is None:
                    return
                if isinstance(batch, _Failure):
                    raise batch.error
                yield batch
        finally:
            stop.set()
            thread.join(_JOIN_S)


def _next_of(
    ready: queue.Queue[Batch | _Failure | None], thread: threading.Thread
) -> Batch | _Failure | None:
    """The thread's next message, waited for as long as it lives."""
    while True:
        try:
            return ready.get(timeout=_POLL_S)
        except queue.Empty:
            if not thread.is_alive() and ready.empty():
                raise RuntimeError("the loader's thread ended without a word") from None


def _fill(
    ready: queue.Queue[Batch | _Failure | None],
    stop: threading.Event,
    store: Store,
    order: Int64Array,
    slices: list[slice],
    *,
    history_length: int,
    pin: bool,
) -> None:
    """Body of the thread: gather each batch, wait for room, until the end or `stop`."""
    try:
        for part in slices:
            batch = batch_tensors(store, order[part], history_length)
            if pin:
                batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
            if not _offer(ready, stop, batch):
                return
        _offer(ready, stop, None)
    except BaseException as error:
        _offer(ready, stop, _Failure(error))


def _offer(
    ready: queue.Queue[Batch | _Failure | None],
    stop: threading.Event,
    message: Batch | _Failure | None,
) -> bool:
    """Put a message once there is room; False when nobody wants it any more."""
    # A consumer that dies holding its iterator never says stop, but the main thread has ended.
    while not stop.is_set() and threading.main_thread().is_alive():
        try:
            ready.put(message, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False
