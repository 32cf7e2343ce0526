"""What a user types: the command ``dual-loop``, whose parts the scripts of ``tools/`` run too.

Everything here is light: torch, mmengine and the rest of the project are imported only when a command acts, so that
``--help`` answers at once, also where they are not installed.
"""
