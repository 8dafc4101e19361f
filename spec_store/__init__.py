"""spec-store: which rows of my table do two embedding models group differently?"""
