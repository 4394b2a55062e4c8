"""What runs on a host, and not where it is deployed from: installing, starting, watching, telling."""
