"""What embedding costs: prices, and what was spent and saved."""
