"""The tables of the RELAX paper: what was published, and what this library's runs give.

The one idea: a run leaves one small file of figures, and every table is made of such files. Those in `dvae/lab/paper/results` came
with the package, others are in the folder that `dvae paper run` writes to.

```bash
dvae paper table --rows MNIST/L1
```

`dvae paper run --rows '[MNIST/L1, MNIST/L2]' --mnist binarized_mnist_fixed.npz` trains REBAR and RELAX for the paper's 2,000,000
updates, an hour or more each on one core; `--lrs '[0.005, 0.001, 0.0005, 0.0001, 0.00005]'` is the paper's grid of learning rates,
of which the table takes the best on the validation set. Stopped, the same command goes on. The field's fixed binarization
(`--mnist`) and Omniglot's `chardata.mat` (`--omniglot`) are not shipped; without `--mnist` it is the bundled binarization.
`make paper ROWS=MNIST/L1 DATA=binarized_mnist_fixed.npz` is both commands.

REBAR's shipped row is of one run on one core beside other work, in 65 minutes. RELAX's was begun by an earlier version, went on by
later ones, and has no seconds; it has `direct_gradient`, as in the paper. With that (`--model.direct_gradient true`) REBAR had
ended at -111.78, with a validation ELBO of -114.86 and a bound of -109.28: no difference that one seed shows.

Three numbers go by one name there. The paper's table 1 is the highest training ELBO that was ever reached, a mean over few steps;
ours is that too, and beside it the mean over the last fortieth. Its validation figure is called a bound of 100 samples, but agrees
with an ELBO of one: both are given.
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
