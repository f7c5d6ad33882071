"""A queue on a Redis Cluster: its keys share a slot, and the users' hashes lie anywhere. See docs/cluster.md."""
