"""What recommendations are worth on a shop's own history: the real fold and retrieval, beside baselines.

Everything happens in this process, in the order in which it happened: no Kafka, no Qdrant.
"""
