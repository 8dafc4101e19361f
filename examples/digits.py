"""From Python: which handwritten digits do two embeddings group differently?

python examples/digits.py
"""

import tempfile

import spec_store
from spec_store.demo import create_demo


def main() -> None:
    with tempfile.TemporaryDirectory() as db:
        create_demo("images", db=db)
        run = spec_store.compare("images", ["pixels", "hog"], db=db, write=True, key="id")
        print(f"SPEC-diff {run.spec_diff:.4f} over {run.n_rows} rows")
        report = spec_store.clusters("images", by="label", db=db)
        for cluster in report.clusters.slice(0, 5).to_pylist():
            labels = ", ".join(f"{e['share']:.0%} {e['value']}" for e in cluster["labels"])
            print(
                f"cluster {cluster['cluster']}, grouped by {cluster['side']}:"
                f" {cluster['size']} rows, {labels}"
            )
        where = f"{run.prefix}_cluster = 1 AND {run.prefix}_score > 1"
        rows = spec_store.query("images", where, select=["id", "label"], limit=5, db=db).read_all()
        print("typical of cluster 1:", rows["id"].to_pylist())


if __name__ == "__main__":
    main()
