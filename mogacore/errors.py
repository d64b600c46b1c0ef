"""The error a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: the message says what came, what is allowed, and what to do.

    The command-line tools print it as one line and exit with code 2; every other exception is our bug and keeps
    its traceback.
    """
