"""The provider's batch jobs, at half price: who makes them, looks after them, and brings home what they have made."""
