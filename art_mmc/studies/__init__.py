"""
One file a verb of the command line: settings -> run -> record.
"""
