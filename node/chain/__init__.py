"""Chain replication: linearizable keys on k nodes, through crashes, pauses and partitions."""
