class ARTTestException(Exception):
    pass
