"""What a network that learns to denoise minimizes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortexgen.diffusion.parameterization import Prediction, training_target
from cortexgen.diffusion.prior import Posterior
from cortexgen.losses.smoothness import gradient_energy


def loss_at_fixed_times(loss: Callable[[Tensor, Tensor], Tensor], like: Tensor, count: int) -> Tensor:
    """The mean of a denoising loss over equally spaced times, with the same noise whenever it is asked for.

    Arguments:
        loss: of times `[B]` in (0, 1) and standard normal noise.
        like: `[B, *]`, what the noise is like.
        count: of times.
    """
    generator = torch.Generator().manual_seed(0)
    times = (torch.arange(count) + 0.5) / count
    noise = [torch.randn(like.shape, generator=generator).to(like) for _ in times]
    losses = [loss(t.expand(len(like)).to(like.device), n) for t, n in zip(times, noise, strict=True)]
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class DenoisingLoss:
    """`mean (f - y)² + w ‖∇(f - y)‖²` of a network's output f: a Sobolev norm of its error.

    The target y is eps, v or x0; or what a prior's posterior leaves of x0 in units of its size, `(x0 - mean) / size`,
    which weights the levels alike.

    Attributes:
        prediction: what the network predicts without a prior.
        gradient_weight: w.
    """

    prediction: Prediction = "v"
    gradient_weight: float = 0.0

    def __call__(
        self, output: Tensor, x0: Tensor, noise: Tensor, log_snr: Tensor, guess: Posterior | None = None
    ) -> Tensor:
        """The loss, a scalar.

        Arguments:
            output, x0, noise: `[B, C, D, H, W]`.
            log_snr: `[B]`.
            guess: a prior's, of x0 given the network's input.
        """
        if guess is None:
            target = training_target(x0, noise, log_snr, self.prediction)
        else:
            target = (x0 - guess.mean) / guess.size
        error = output - target
        loss = error.square().mean()
        return loss + self.gradient_weight * gradient_energy(error) if self.gradient_weight else loss
