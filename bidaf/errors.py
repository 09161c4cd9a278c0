"""What a user can get wrong, as three kinds of errors with the exit code each ends a command with."""

from __future__ import annotations


class BidafError(Exception):
    """The run failed: a full disk, a non-finite loss, a corrupted checkpoint. Exit code 1."""

    exit_code = 1


class UsageError(BidafError):
    """The command line or the config is wrong. Exit code 2."""

    exit_code = 2


class DataError(BidafError):
    """Data is missing or unreadable. Exit code 3."""

    exit_code = 3
