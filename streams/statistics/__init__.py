"""Statistics across users, from the topics: `fold` is pure, `service` reads Kafka and writes Qdrant."""
