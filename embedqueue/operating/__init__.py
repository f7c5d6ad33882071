"""What runs a worker and looks at a queue, for every command line and dashboard. Prints nothing itself."""
