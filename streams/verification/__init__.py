"""Judges stored profiles by the log they come from: what `afterglow verify` runs.

`recomputation` folds a user's events the obvious way, `comparison` says where a stored profile differs, `sources`
knows which records belong to a generation, `log` and `stored` read Kafka and Qdrant, and `judge` goes through all
users. Nothing here shares code with the fold that is judged (`streams.profiles`), and nothing writes anything.
"""
