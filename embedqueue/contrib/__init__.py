"""embedqueue in web frameworks, each behind its extra: ``flask`` and ``django``."""
