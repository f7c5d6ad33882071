"""Plain values: what the other rooms hand to each other. Nothing here knows a thread, a network or Redis."""
