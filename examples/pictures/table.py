"""A LanceDB table of your own pictures, under two image networks and an embedding of their file names.

python examples/pictures/table.py FOLDER --db pictures-db
spec-store compare --db pictures-db --table pictures --cols efficientnet,mobilenet --key id

Columns: id, path (inside FOLDER), folder, name, thumbnail (PNG bytes), efficientnet, mobilenet and file_name.
README.md says what to install.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from networks import DIMENSION, SIDE, Embed, efficientnet, mobilenet
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
THUMBNAIL = 96
BATCH = 32
MOST_NAME_DIMENSIONS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a LanceDB table from a folder of pictures.")
    parser.add_argument("folder", type=Path, help="Folder of pictures; folders inside it are read too.")
    parser.add_argument("--db", required=True, help="LanceDB database to make the table in.")
    parser.add_argument("--table", default="pictures", help="Name of the new table.")
    parser.add_argument("--limit", type=int, help="Maximum number of pictures: a random sample of them.")
    parser.add_argument("--min-side", type=int, default=48, help="Skip pictures with a shorter side.")
    options = parser.parse_args()
    files = picture_files(options.folder, options.limit)
    if not files:
        parser.error(f"no picture in {options.folder}: its files end in {', '.join(sorted(SUFFIXES))}")
    names = file_name_vectors([path.stem for path in files])
    rows = batches(options.folder, files, names, options.min_side)
    db = lancedb.connect(options.db)
    columns = schema(names.shape[1])
    table = db.create_table(options.table, rows, schema=columns, on_bad_vectors="null")
    print(f"{table.count_rows():,} pictures of {len(files):,} files are in table {options.table!r}.")


def picture_files(folder: Path, limit: int | None, seed: int = 0) -> list[Path]:
    """Files that look like pictures, in order of their paths; links are not followed."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink()
    ]
    if limit is None or limit >= len(found):
        return found
    chosen = np.random.default_rng(seed).choice(len(found), limit, replace=False)
    return [found[i] for i in np.sort(chosen)]


def file_name_vectors(names: Sequence[str]) -> NDArray[np.float32]:
    """Runs of three and four letters, TF-IDF, then an SVD; zeros for a name that shares none with others."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = [re.sub(r"[\W\d_]+", " ", name.lower()) for name in names]
    counted = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), min_df=min(3, len(names)), sublinear_tf=True
    )
    counts = counted.fit_transform(words)
    width = min(MOST_NAME_DIMENSIONS, counts.shape[1] - 1, len(names) - 1)
    return np.asarray(TruncatedSVD(width, random_state=0).fit_transform(counts), np.float32)


def schema(name_dimensions: int) -> pa.Schema:
    return pa.schema(
        {
            "id": pa.int64(),
            "path": pa.string(),
            "folder": pa.string(),
            "name": pa.string(),
            "thumbnail": pa.binary(),
            "efficientnet": pa.list_(pa.float32(), DIMENSION),
            "mobilenet": pa.list_(pa.float32(), DIMENSION),
            "file_name": pa.list_(pa.float32(), name_dimensions),
        }
    )


def batches(
    folder: Path, files: Sequence[Path], names: NDArray[np.float32], min_side: int
) -> Iterator[pa.RecordBatch]:
    """Rows of the table; a picture that is broken, small or the copy of an earlier one is skipped."""
    networks = {"efficientnet": efficientnet(), "mobilenet": mobilenet()}
    seen: set[bytes] = set()
    rows: list[dict[str, object]] = []
    squares: list[Image.Image] = []
    for number, path in enumerate(files):
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        picture = None if digest in seen else opened(content, path)
        seen.add(digest)
        if picture is not None and min(picture.size) >= min_side:
            inside = path.relative_to(folder)
            rows.append(
                {
                    "id": number,
                    "path": inside.as_posix(),
                    "folder": inside.parent.as_posix(),
                    "name": path.stem,
                    "thumbnail": thumbnail(picture),
                    "file_name": names[number] if names[number].any() else None,
                }
            )
            squares.append(ImageOps.pad(picture, (SIDE, SIDE), color="white"))
        if len(rows) == BATCH or (rows and path == files[-1]):
            yield embedded(rows, squares, networks, names.shape[1])
            rows, squares = [], []
            print(f"\r{number + 1:,} of {len(files):,} files", end="", file=sys.stderr)
    print(file=sys.stderr)


def embedded(
    rows: Sequence[dict[str, object]],
    squares: Sequence[Image.Image],
    networks: dict[str, Embed],
    name_dimensions: int,
) -> pa.RecordBatch:
    vectors = {column: list(embed(squares)) for column, embed in networks.items()}
    complete = [{**row, **{c: v[i] for c, v in vectors.items()}} for i, row in enumerate(rows)]
    return pa.RecordBatch.from_pylist(complete, schema=schema(name_dimensions))


def opened(content: bytes, path: Path) -> Image.Image | None:
    """The picture on white, or nothing and a line that says why."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        print(f"\n{path} is skipped: {error}", file=sys.stderr)
        return None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.quantize(64).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
