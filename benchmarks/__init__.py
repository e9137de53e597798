"""How fast jaxglm is, beside the best of its peers, on problems that anyone can make again.

    python -m benchmarks --scale 0.01                      # everything, at a hundredth of its size
    python -m benchmarks --problem scan --library plink2   # one problem, one peer
    python -m benchmarks --scaling                         # time against groups, rows and columns

The way of a number, from top to bottom: `workloads` makes a `problems.Problem`; an adapter turns it into a `Job`, which is
that problem in a library's own terms; `checks` holds the job's coefficients against a plain NumPy reference, and a job that
fails is not timed; `timing` runs all jobs of a problem in turn, again and again, so that what slows the machine slows all;
`report`, `targets` and `plots` say what came out, and `environment` on what. `runner` is the one that calls them.
"""
