"""Any other architecture: transformers' own forward pass on a padded batch, in float32."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PaddedTransformer:
    """Same contract as `PackedTransformer`. float32 on every device: nothing is known of the model's tolerance."""

    padded: Final = True

    def __init__(self, model: "PreTrainedModel", *, pooling: str, device: torch.device) -> None:
        self.device = device
        self.dimension: int = model.config.hidden_size
        self._model = cast(torch.nn.Module, model).to(device, torch.float32).eval()
        self._pooling = pooling
        self._padding: int = getattr(model.config, "pad_token_id", None) or 0

    @torch.inference_mode()
    def pooled(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Pooled float32 vectors [n, dimension], not normalised."""
        longest = max(map(len, texts))
        ids = torch.tensor([[*ids, *[self._padding] * (longest - len(ids))] for ids in texts]).to(self.device)
        lengths = torch.tensor([len(ids) for ids in texts]).to(self.device)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        hidden = cast(Tensor, self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state)
        if self._pooling == "cls":
            return hidden[:, 0]
        return (hidden * mask[:, :, None]).sum(1) / lengths[:, None]
