"""An output for others: its model card, and its way to the hub. What has no sidecar of ours is not an output."""
