"""One run of semantic image synthesis: config -> data -> model -> training -> evaluation -> record."""
