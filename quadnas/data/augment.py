"""Images as bytes -> network input, for a whole batch at once and on the images' device."""

import torch
import torch.nn.functional as F

from quadnas.data.draws import Draws
from quadnas.data.normalization import Normalization


def random_crops(images: torch.Tensor, draws: Draws, *, shift: bool, flip: bool) -> torch.Tensor:
    """Shift every image by up to an eighth of its side, black beyond the edge, and mirror half of them.

    ``images`` is (B, C, H, W) and so is the result; ``shift`` and ``flip`` allow each. The numbers are drawn
    on the CPU, so that every device sees the same crops.
    """
    count, _, height, width = images.shape
    pad_h, pad_w = (max(1, round(side / 8)) if shift else 0 for side in (height, width))
    generator, whole = draws.generator(), (draws.count, 1)
    part = slice(draws.positions.start, draws.positions.stop)
    top = torch.randint(2 * pad_h + 1, whole, generator=generator)[part]
    left = torch.randint(2 * pad_w + 1, whole, generator=generator)[part]
    mirrored = (torch.rand(whole, generator=generator)[part] < 0.5) & flip
    rows = top + torch.arange(height)
    columns = torch.arange(width).expand(count, width)
    columns = left + torch.where(mirrored, width - 1 - columns, columns)
    padded = F.pad(images, (pad_w, pad_w, pad_h, pad_h))
    device = images.device
    item = torch.arange(count, device=device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[item, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def to_network_input(images: torch.Tensor, size: int, normalization: Normalization) -> torch.Tensor:
    """Resize bytes (B, 1 or 3, H, W) to ``size`` x ``size`` (bilinear, antialiased) and normalise them.

    Returns (B, 3, size, size) float32, channels-last; a grey image is repeated in the three channels.
    """
    resized = images.float()
    if resized.shape[-2:] != (size, size):
        resized = F.interpolate(resized, (size, size), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    normalised = torch.empty(
        (len(images), 3, size, size), device=images.device, memory_format=torch.channels_last
    )
    torch.mul(resized, 1 / (255 * std), out=normalised)
    return normalised.sub_(mean / std)
