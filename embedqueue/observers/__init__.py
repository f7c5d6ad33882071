"""Who is told what happens: the list of a queue's observers, and the one that writes the history."""
