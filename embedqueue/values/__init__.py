"""What all rooms share: plain values, errors, words, locks. Nothing here starts a thread or speaks to anybody."""
