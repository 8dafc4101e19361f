"""What was found, for people to read: sentences, figures, pictures, and one page of all of them.

Reads records and plain data alone: no store is opened here.
"""
