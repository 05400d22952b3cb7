"""What the shop's customers did, as pairs that a model learns from; the learning itself is `encoders.training`."""
