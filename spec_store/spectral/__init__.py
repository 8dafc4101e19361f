"""The spectrum of a kernel difference: features, covariance, modes, clusters, scores. Knows no store."""
