"""Many texts at once: what the hashes of each have, and what they lack is put in, no faster than the queue has room."""
