"""From an enqueue to its ``.result()``, also where another process does the work."""
