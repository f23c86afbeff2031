"""Tables, pictures and plots of what `dvae.lab` and training found.

The one idea: an instrument returns figures, and only here are they laid out. Each file is one kind of sheet: `tables` for the
terminal, `pictures` of samples and reconstructions, `curves` of runs, and the plots of the toy, the variances and the benchmark.
`page` is one of HTML, with `charts` that a reader can look into.
"""
