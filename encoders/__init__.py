"""Text in, unit vectors out. Knows nothing of Kafka, Faust or Qdrant."""
