"""A headless Chromium for tests, driven by DevTools messages over its own pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_S = 60.0


def find_chromium() -> str | None:
    """The program of an installed Chromium or Chrome, None without one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. `events` are all messages that were no answers, in the order they came."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0
        self._session: str | None = None

    def start(self) -> None:
        """Attach to a new page and listen to its console, errors and requests."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + _ANSWER_S
        while True:
            answer = self._receive(deadline_s)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _receive(self, deadline_s: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self.read], [], [], max(0.0, left_s))
            assert ready, "the browser does not answer"
            part = os.read(self.read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file at a width, and wait until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=file.resolve().as_uri())
        deadline_s = time.monotonic() + _ANSWER_S
        while self.value("document.readyState") != "complete":
            assert time.monotonic() < deadline_s, "the page does not load"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """What is seen, or the whole page, as PNG."""
        done = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **(
            {"clip": {"x": 0, "y": 0, "scale": 1, **self.page_size()}} if whole else {}
        ))  # fmt: skip
        file.write_bytes(base64.b64decode(done["data"]))

    def page_size(self) -> dict[str, float]:
        """Width and height of the whole page in pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"width": size["width"], "height": size["height"]}

    def complaints(self) -> list[str]:
        """What the page wrote to the console, its exceptions and the browser's own complaints."""
        found = [e for e in self.events if e["method"] in (
            "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"
        )]  # fmt: skip
        return [json.dumps(event["params"])[:500] for event in found]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A running browser with a profile of its own; it is ended and reaped at the end."""
    program = find_chromium()
    assert program is not None
    (child_in, ours_out), (ours_in, child_out) = os.pipe(), os.pipe()
    arguments = [
        program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
        "--disable-dev-shm-usage",
    ]  # fmt: skip
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to start as root with one
    # the browser reads commands from descriptor 3 and writes to 4, whatever ours are
    moved = f'exec 3<&{child_in} 4>&{child_out}; exec "$0" "$@"'
    process = subprocess.Popen(
        ["bash", "-c", moved, *arguments], pass_fds=(child_in, child_out),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(child_in)
    os.close(child_out)
    try:
        page = Browser(ours_out, ours_in)
        page.start()
        yield page
    finally:
        os.close(ours_out)  # the browser ends when its pipe closes
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
