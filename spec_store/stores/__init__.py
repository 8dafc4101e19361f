"""Rows in, whatever the store: columns, views, joins, vectors as matrices. Knows no mathematics."""
