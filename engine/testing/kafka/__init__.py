"""A private Kafka with Debezium: one broker and one Kafka Connect worker, for tests and benchmarks."""
