"""The packaged configuration: default.yaml is the source of every key."""
