"""Nothing in the database but the admin's permissions."""
