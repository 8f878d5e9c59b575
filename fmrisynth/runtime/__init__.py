"""The runtime asks the machine for devices, processors, worker processes and atomic files.

In come requests and limits, out go what the machine has. It imports the errors alone.
"""
