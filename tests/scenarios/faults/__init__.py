"""What the product must survive: a table of faults, one test for each row.

    make faults                                      all of them, with a table of the results
    python -m tests.scenarios.faults --rows 1,14 --times 10

A third runs with every `make test`; the others are marked `elaborate`.
"""
