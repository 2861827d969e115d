"""What a user can mend."""


class UserError(Exception):
    """What was expected, what came, and what to do: the program prints it as one line.

    Any other exception is a mistake in the code and keeps its traceback.
    """
