"""The one exception that a user is meant to read."""


class AdvtagError(Exception):
    """Bad input, named: the file, branch, dataset or key, what was expected, and what to do.

    The command line prints its text in one line and exits with 1; everything else is a bug and keeps its
    traceback.
    """
