"""Vectors out, and read back: Qdrant collections, conditional upserts, retrieval, recommendation."""
