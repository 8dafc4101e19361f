"""Data with a known answer, and the naive n x n computation, for tests."""

import numpy as np
import pyarrow as pa


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def vectors(matrix, dtype=np.float32):
    """An Arrow column of fixed-size lists."""
    matrix = np.asarray(matrix, dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def batch_of(**matrices):
    """A record batch with a running key and one float64 vector column per keyword."""
    n = len(next(iter(matrices.values())))
    columns = {name: vectors(m, np.float64) for name, m in matrices.items()}
    return pa.record_batch({"key": pa.array(np.arange(n)), **columns})


def random_pair(n, d_a=6, d_b=9, seed=0):
    """Two embeddings of the same rows that share some structure."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, d_a)) + 0.5
    b = np.tanh(a @ rng.standard_normal((d_a, d_b))) + 0.3 * rng.standard_normal((n, d_b))
    return a, b


def planted_mixture(n, *, unequal=False, seed=0, n_groups=20, d=64, noise=0.5, merged=4, orthogonal=False):
    """Groups of rows in two embeddings; b merges the first `merged` pairs of a's groups.

    Orthogonal centres and groups of exactly equal size give modes of equal strength.
    Returns a, b, and the group of each row.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.permutation(np.linspace(1, 6, n_groups)) if unequal else np.ones(n_groups)
    groups = rng.choice(n_groups, size=n, p=sizes / sizes.sum())
    centres_a, centres_b = rng.standard_normal((2, n_groups, d))
    if orthogonal:
        groups = np.arange(n) % n_groups
        centres_a, centres_b = (np.sqrt(d) * np.linalg.qr(c.T)[0].T for c in (centres_a, centres_b))
    centres_b[1 : 2 * merged : 2] = centres_b[0 : 2 * merged : 2]
    a = centres_a[groups] + noise * rng.standard_normal((n, d))
    b = centres_b[groups] + noise * rng.standard_normal((n, d))
    return a.astype(np.float32), b.astype(np.float32), groups


def exact_difference(kernel_a, kernel_b, *, eta=1.0, center=False):
    """Λ = (K_A - η K_B)/n, doubly centred where asked; n x n."""
    difference = (kernel_a - eta * kernel_b) / len(kernel_a)
    if center:
        difference = difference - difference.mean(axis=0)
        difference = difference - difference.mean(axis=1, keepdims=True)
    return difference


def gaussian(x, sigma):
    sq = ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=-1)
    return np.exp(-sq / (2 * sigma**2))


def rotated_clipped_noisy(n, *, seed=0, widths=(128, 96), n_groups=40):
    """Unit rows of groups of very different sizes; and a rotated, bent, clipped, noisy function of them."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(1 + np.arange(widths[0]) / 4)
    share = 1 / np.arange(1, n_groups + 1)
    centres = rng.standard_normal((n_groups, widths[0])) * scale
    group = rng.choice(n_groups, n, p=share / share.sum())
    a = centres[group] + 0.6 * rng.standard_normal((n, widths[0])) * scale
    y = a @ np.linalg.qr(rng.standard_normal((widths[0], widths[0])))[0][:, : widths[1]]
    y /= y.std(axis=0)
    b = np.clip(y + 0.3 * y**2, -1, 1.5) + 0.1 * rng.standard_normal(y.shape)
    return unit(a), unit(b)


def hidden_clusters(b, *, n_rows, n_clusters=4, shift=1.5, seed=0):
    """Rows drawn by chance are moved together, cluster by cluster; and each row's cluster, -1 for none."""
    rng = np.random.default_rng([seed, 7])
    truth = np.full(len(b), -1)
    drawn = rng.permutation(len(b))[: n_clusters * n_rows].reshape(n_clusters, n_rows)
    moved = b.copy()
    for j, rows in enumerate(drawn):
        moved[rows] += shift * unit(rng.standard_normal((1, b.shape[1])))
        truth[rows] = j
    return unit(moved), truth
