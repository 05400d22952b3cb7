"""The pre-trained model becomes the shop's own: pairs of texts in, a folder with a tuned model out.

Knows nothing of where pairs come from: `streams.training` mines them.
"""
