"""What runs found, for eyes: sentences and figures from their records."""
