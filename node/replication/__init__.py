"""What answers for an arc: holdings, hand-over between nodes, routing of operations to the holder."""
