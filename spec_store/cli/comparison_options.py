"""The options of a comparison, which is made by one command or in steps."""

from __future__ import annotations

from typing import Any

import click

from .help import headed

__all__ = [
    "describe_option",
    "feature_options",
    "keep_sample_option",
    "kernel_options",
    "key_option",
    "maps_from_option",
    "mode_options",
    "prefix_option",
    "where_option",
    "write_modes_option",
]


class _Bandwidth(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """``auto``, or one σ per embedding: ``3.5,28``."""

    name = "auto|σ,σ"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None or value == "auto" or isinstance(value, tuple):
            return None if value == "auto" else value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is neither auto nor numbers such as 3.5,28, one per column.", param, ctx)


where_option = click.option(
    "--where", metavar="SQL", help="Compare and annotate only the rows that match this filter."
)

key_option = click.option(
    "--key",
    metavar="COLUMN",
    help="The column that identifies rows: it joins columns of two stores and names typical rows.",
)

prefix_option = click.option("--prefix", help="Prefix of the result columns. Default: spec_{first}_{second}.")

write_modes_option = click.option(
    "--write",
    "write_modes",
    type=click.Choice(["modes"]),
    help="Also write the scores of the ten leading modes of each end, the paper's own, as a column.",
)

describe_option = click.option(
    "--describe/--no-describe",
    default=True,
    show_default=True,
    help="Count which values and words of other columns are over-represented in each cluster.",
)

keep_sample_option = click.option(
    "--keep-sample/--no-keep-sample",
    default=True,
    show_default=True,
    help="Keep the sampled vectors with the recorded run, so that answers from it read none.",
)

maps_from_option = click.option(
    "--maps-from",
    metavar="ID",
    help="Use the feature maps of a recorded run, bandwidths included: the two can then be compared.",
)

kernel_options = headed(
    "Kernel",
    click.option(
        "--kernel",
        type=click.Choice(["gaussian", "cosine"]),
        default="gaussian",
        show_default=True,
        help="Kernel that measures the similarity of two rows.",
    ),
    click.option(
        "--bandwidth",
        type=_Bandwidth(),
        metavar="auto|σ,σ",
        default="auto",
        show_default=True,
        help="Bandwidth σ of each Gaussian kernel.",
    ),
    click.option(
        "--bandwidth-scale",
        type=float,
        default=1.0,
        show_default=True,
        help="Factor that multiplies both bandwidths.",
    ),
    click.option(
        "--eta",
        type=float,
        default=1.0,
        show_default=True,
        help="Weight η of the second kernel in the difference.",
    ),
    click.option(
        "--normalize/--no-normalize",
        default=True,
        show_default=True,
        help="Scale rows to unit length first; --no-normalize is the paper's method.",
    ),
)

feature_options = headed(
    "Feature maps",
    click.option(
        "--features",
        type=click.Choice(["nystroem", "orf", "rff"]),
        default="nystroem",
        show_default=True,
        help="Features of the Gaussian kernel. nystroem: landmarks from the data, the most accurate for their"
        " number. orf: orthogonal random features, for states that merge without sharing landmarks."
        " rff: random Fourier features, the paper's method.",
    ),
    click.option(
        "--dim",
        type=int,
        help="Number of landmarks or frequencies. Default: 500 for nystroem, 1000 for orf, 3000 for rff.",
    ),
    click.option(
        "--landmarks",
        type=click.Choice(["kmeans", "uniform"]),
        default="kmeans",
        show_default=True,
        help="Landmarks of nystroem: k-means centroids of the sample, or rows of it.",
    ),
    click.option(
        "--sample-rows",
        type=int,
        default=20_000,
        show_default=True,
        help="Size of the random sample for bandwidths, landmarks (at most 10,000 of its rows) and rotation.",
    ),
    click.option(
        "--fit-rows",
        type=int,
        metavar="N",
        help="Fit on a random share of the rows, about N of them, and score all. Every figure is then one of"
        " these rows, with its standard error. Default: all rows.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "float64"]),
        default="float32",
        show_default=True,
        help="Floating-point type of features and their products. float64 takes twice as long and separates"
        " nearly identical embeddings.",
    ),
)

mode_options = headed(
    "Modes and clusters",
    click.option(
        "--modes",
        type=int,
        help="Number of leading modes at each end of the spectrum, which propose clusters. Default: 40.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["difference", "koda"]),
        default="difference",
        show_default=True,
        help="What proposes clusters. difference: eigenvectors of the kernel difference. koda: directions"
        " that one embedding captures most among those of which the other sees at most epsilon.",
    ),
    click.option(
        "--epsilon",
        default="50%",
        show_default=True,
        help="What the other embedding may see of a koda direction: a number from 0 to 1, or a quantile of"
        " its kernel's eigenvalues such as 50%.",
    ),
    click.option(
        "--center/--no-center",
        default=True,
        show_default=True,
        help="Remove the mode that is the mean similarity itself; --no-center is the paper's method.",
    ),
)
