"""embedqueue beside its alternatives and beside the limit, in one run on one machine: ``python -m benchmarks``."""
