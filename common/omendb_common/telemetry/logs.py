"""Log lines on stderr: text for people, JSON for machines, secrets in neither."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from omendb_common.errors import InvalidArgumentError

LogFormat = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "[hidden]"
MESSAGE_CHARS_MAX = 8192
"""Longer messages are cut: what a caller sent must not fill a disk."""

_SECRET_NAMES = re.compile(r"(?i)authori[sz]ation|api[_-]?key|token|password|passwd|secret|credential|cookie|pepper")
_SECRETS = (
    re.compile(r"\bomn_\w{1,64}_[0-9A-Za-z]{8,}"),
    re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"),
    re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\bAKIA[0-9A-Z]{12,}"),
)
# name=value and "name": "value"; the name stays.
_NAMED_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:api[_-]?key|token|password|passwd|secret|credential))[\"']?\s*[=:]\s*[\"']?[^\s\"',;&}]{4,}"
)
# What every record has; whatever else it carries was given by the caller of the log.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def hide(text: str) -> str:
    """The text with everything that looks like a credential replaced."""
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return _NAMED_SECRET.sub(rf"\1={HIDDEN}", text)


def _given(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave with ``extra=``, secrets hidden."""
    return {
        name: HIDDEN if _SECRET_NAMES.search(name) else hide(value) if isinstance(value, str) else value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


class _Lines(logging.Formatter):
    """One record, one line."""

    def __init__(self, about: Mapping[str, str]) -> None:
        super().__init__()
        self._about = dict(about)

    def _parts(self, record: logging.LogRecord) -> tuple[str, str, str]:
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        message = hide(record.getMessage())
        if len(message) > MESSAGE_CHARS_MAX:
            message = message[:MESSAGE_CHARS_MAX] + "…"
        trace = hide(self.formatException(record.exc_info)) if record.exc_info else ""
        return when.replace("+00:00", "Z"), message, trace


class JsonLines(_Lines):
    """One JSON object a line: time, level, logger, message, what the process is, and what was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        when, message, trace = self._parts(record)
        told = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": message}
        told |= self._about
        told |= {name: value for name, value in _given(record).items() if name not in told}
        if trace:
            told["exception"] = trace
        return json.dumps(told, ensure_ascii=False, default=lambda value: hide(str(value)))


class TextLines(_Lines):
    """A line for people; line breaks in it are escaped, so that nobody can forge a second one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        when, message, trace = self._parts(record)
        given = "".join(f" {name}={value}" for name, value in _given(record).items())
        about = "/".join(self._about.values())
        line = f"{when} {record.levelname:<7} {about} {record.name}: {message}{given}"
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        return f"{line}\n{trace}" if trace else line


def configure(
    *, form: LogFormat = "text", level: str = "info", role: str = "", node_id: str = "", stream: TextIO | None = None
) -> None:
    """Send every log line of this process to stderr, or to ``stream``, in one form. Replaces what was set before.

    Raises:
        InvalidArgumentError: an unknown level or form.
    """
    if level not in LEVELS:
        raise InvalidArgumentError(f"got {level!r}", field="log_level", bound=f"one of {LEVELS}")
    makers = {"text": TextLines, "json": JsonLines}
    if form not in makers:
        raise InvalidArgumentError(f"got {form!r}", field="log_format", bound="text or json")
    about = {name: value for name, value in (("role", role), ("node", node_id)) if value}
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(makers[form](about))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The libraries' own chatter says nothing about this system.
    for noisy in ("asyncio", "grpc", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


__all__ = ["HIDDEN", "LEVELS", "MESSAGE_CHARS_MAX", "JsonLines", "LogFormat", "TextLines", "configure", "hide"]
