"""SemanticStyleGAN (CVPR 2022): a picture and its mask composed from codes of shape and texture, class by class."""
