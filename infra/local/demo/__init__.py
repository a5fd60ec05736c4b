"""`./run demo`: each module tells a chapter of the story; `main` tells all of it."""
