"""The paint page: finished runs drawn side by side while one paints their label map, served to a browser on this machine."""
