"""A workflow carries out one level of a BIDS-App call, in order.

In come the settings of a call, out go the files of the output directory.
It may import everything but the command line.
"""
