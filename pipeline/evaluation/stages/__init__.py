"""Stages of an evaluation: what follows the stream of images and generates pictures of its own."""
