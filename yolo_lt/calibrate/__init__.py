"""From a trained model to decisions: per-class confidence thresholds. numpy only."""
