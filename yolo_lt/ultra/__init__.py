"""The only room that imports ultralytics: every seam of DESIGN section 3 is a file here, none a patched global."""
