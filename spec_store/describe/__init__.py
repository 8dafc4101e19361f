"""What is over-represented in each cluster of rows: statistics over Arrow batches, of one streaming pass.

`kinds` decides how a column is described, `encoders` and `bins` turn it into codes, `members` counts them,
`enrichment` tests the counts, `reservoir`, `tokens` and `words` do the same for texts. Knows no store.
"""

from .describer import Describer, Description
from .kinds import candidates
from .values import Value
from .words import Word

__all__ = ["Describer", "Description", "Value", "Word", "candidates"]
