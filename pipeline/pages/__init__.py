"""How pages in a browser look: what the report of a study and the paint page share."""
