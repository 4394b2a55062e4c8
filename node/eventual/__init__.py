"""The replication that always answers: any replica takes a write, and replicas come to agree afterwards.

Follows DeCandia et al., "Dynamo" (2007), with hybrid logical clocks in place of wall clocks. It is told by a
`Placement` who should hold what, and needs that to be right in the end only.
"""
