"""Limits of the server."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mogacore.errors import UserError

LARGEST = 9_000_000_000  # below what waiting for a lock accepts, in seconds


@dataclass(frozen=True)
class Settings:
    """Limits of the server; the defaults suit a few CPU cores.

    Attributes:
        max_batch: Largest number of images predicted together; models whose files take fewer at a time
            use that number.
        max_delay_ms: Longest time that an image waits for others, in milliseconds; 0 joins only what already waits.
        max_queue: Largest number of requests being processed, and of images waiting per model; more are refused with
            status 503.
        max_bytes: Largest body of a request.
        body_timeout_s: Longest time that a client may take to send a body, in seconds.
        grace_s: Longest time that running requests get to finish after SIGTERM, in seconds.

    Raises:
        UserError: If a value is out of range.
    """

    max_batch: int = 8
    max_delay_ms: float = 5.0
    max_queue: int = 64
    max_bytes: int = 20_000_000
    body_timeout_s: float = 30.0
    grace_s: float = 30.0

    def __post_init__(self):
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name == 'max_delay_ms' else 1
            if not least <= value <= LARGEST:
                flag = '--' + one.name.replace('_', '-')
                raise UserError(f'{flag} {value} is out of range: use {least} or more, at most {LARGEST}')
