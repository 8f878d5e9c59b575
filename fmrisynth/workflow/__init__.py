"""A workflow carries out one level of a BIDS-App call, in order.

In come a call's settings, out go the files of the output directory, which no other room knows.
It may import everything but the command line.
"""
