"""The same random commands to a plain Redis and to a proxy, whose clients have to see the same bytes.

`python -m tests.differential --commands 1000000 --seed 7` for longer runs than the tests'.
"""
