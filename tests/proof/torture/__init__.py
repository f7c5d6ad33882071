"""The torture rig: real processes, a real Redis, faults at random, and a checker that knows what was promised.

``python -m tests.proof.torture --seconds 60 --seed 1`` prints a table, and fails if anything was lost, stale or sent
too often.
"""
