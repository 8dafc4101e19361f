"""A compared table that has everything a page may have to show, and texts that try to be more than text."""

import io

import lancedb
import numpy as np
import pyarrow as pa
from PIL import Image

import spec_store
from planted import planted_mixture, vectors

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\" onmouseover='window.hacked=1' x=\"",
    "{{ 7 * 7 }} ${7 * 7} &lt;b&gt; <!--",
    "line\u2028separator \u202e reversed \x1b[31m red",
)
URL = "https://example.com/picture.png?a=1&b=2"


def picture(colour, size=(12, 12)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def create_table(folder, *, n=1200, seed=3):
    """A database with `things`: two vector columns, pictures, texts, links, numbers and groups."""
    a, b, groups = planted_mixture(n, n_groups=12, merged=3, d=32, noise=0.6, seed=seed)
    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "id": [f"it's {i}" for i in range(n)],
            "picture": [picture((20 * g, 90, 250 - 20 * g)) for g in groups],
            "text": [f"{HOSTILE[i % len(HOSTILE)]} of group {g}" for i, g in enumerate(groups)],
            "link": [URL] * n,
            "la<b>el": [f"{HOSTILE[0]} {g}" for g in groups],
            "size": rng.gamma(2.0, 10.0, n),
            "clip": vectors(a),
            "dino": vectors(b),
        }
    )
    lancedb.connect(folder).create_table("things", table)
    return str(folder)


def compared(folder, *, key="id"):
    """As `create_table`, with a comparison's results."""
    db = create_table(folder)
    spec_store.compare("things", ["clip", "dino"], db=db, write=True, key=key)
    return db
