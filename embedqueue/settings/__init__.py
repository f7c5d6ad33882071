"""One way to configure a queue, for Flask, Django and the command line."""
