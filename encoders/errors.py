"""What can go wrong between a text and its vector."""


class ModelError(Exception):
    """The model can't be used as it is; the message says why and what to do."""


class EncodingFailed(Exception):
    """The model failed on the batch a text was in; asking again would fail again."""


class DeviceLost(Exception):
    """The accelerator is in an error state that only a new process leaves."""


class EncoderError(Exception):
    """A request that will never succeed as it is: an invalid text, another model, a failing model."""
