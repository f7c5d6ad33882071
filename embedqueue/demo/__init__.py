"""``embedqueue demo``: a private Redis, a real model, a killed worker, and a search."""
