"""Annotations of other forms to Ultralytics' layout, with what was looked for where. No torch, no ultralytics."""
