"""Parts of an evaluation: what is measured over the stream of images, group by group."""
