"""What was run, on which table, with what result: records, and the registry that keeps them."""
