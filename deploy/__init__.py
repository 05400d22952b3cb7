"""The embedded services of one machine: Apache Kafka, Qdrant's engine, and what keeps them running."""
