"""The command line turns words into settings and errors into exit codes.

In come the words of a call, out go an exit code, messages and a log file. It may import every
other room.
"""
