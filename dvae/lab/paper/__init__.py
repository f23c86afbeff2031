"""The tables of the RELAX paper: what was published, and what this library's runs give.

The one idea: a run leaves one small file of figures, and every table is made of such files. Those in ``results`` came with the
package, others are in the folder that ``dvae paper run`` writes to.
"""

from dvae.lab.paper.figures import Result, chosen, read_results, result_of, shipped_results, table_rows, write_result
from dvae.lab.paper.published import ESTIMATORS, PUBLISHED, ROWS, Published

__all__ = [
    "ESTIMATORS",
    "PUBLISHED",
    "ROWS",
    "Published",
    "Result",
    "chosen",
    "read_results",
    "result_of",
    "shipped_results",
    "table_rows",
    "write_result",
]
