"""An embedded Qdrant for one machine: Qdrant's own gRPC services over `qdrant-edge-py`, its engine in process.

`python -m deploy.qdrant --data-dir DIR --port P` is a process that any Qdrant client in any language talks to
over gRPC, on a loopback port. It serves collections, aliases, payload indexes, points and queries with the
server's semantics and error codes; whatever it doesn't serve is answered UNIMPLEMENTED by name. In production a
Qdrant server stands in its place and nothing else changes.

Guarantees
    * A write is answered once the engine has logged and applied it: a killed process (`kill -9`) loses nothing
      that was acknowledged. A power cut or a kernel crash can lose what was written since the last flush: at most
      a second, or `collection.UNFLUSHED_BYTES` a collection, whichever comes first.
    * Writes to one collection happen one after another, whole, so that a conditional upsert is atomic against
      every other write. A write whose caller has gone is finished all the same.
    * A request's points, vectors and filters are checked before any of it is applied (in a batch of operations: each
      operation by itself, like on a server).
    * One process owns a data folder; a second one refuses to start.

Non-guarantees
    * Search is exact and brute force, one thread: about 2 ms a query at 50,000 vectors of 384 numbers, in
      batches. It is good to `catalogue.COMFORTABLE_POINTS` points a collection, and logs a warning beyond.
    * HNSW, quantisation, sharding and replication settings are accepted, reported back, and have no effect on answers.
      Of a collection without a graph (`hnsw_config.m` = 0) the vectors are kept packed until the first search, which
      waits for all of them to be laid open: 300 microseconds a point.
    * Everything runs on one event loop. A large write is worked on in steps of one or two milliseconds and a batch of
      searches in steps of some tens, with others in between; a flush stalls everyone for up to a tenth of a second,
      compaction after deletions (only when idle) for about 20 microseconds a point.
    * There is no authentication: it listens on 127.0.0.1 alone.
"""
