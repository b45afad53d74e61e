"""A campaign of faults against a small real study: after each, the same command must end with the same results.

Two layers. `stages`: the study's graph with real stages, MLflow on SQLite and DVC, in a process forked from one that
has imported everything, so that a fault costs seconds. `study`: the command itself, with Prefect and servers.
"""
