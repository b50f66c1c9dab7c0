"""How a policy evaluates its networks through an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from policy.denoiser import BindNetwork, Denoise, data_prediction, make_denoise
from policy.networks.film import HoistedFilm, hoist_film
from policy.networks.lora import has_lora
from policy.networks.unet import ConditionalUnet1D
from policy.runtime.engine import Evaluate, MakeEngine, ModulatedUnet
from policy.solvers import Solver


@dataclass(frozen=True)
class PreparedNetwork:
    """Everything about one network that does not depend on the observation."""

    film: HoistedFilm
    evaluate: Evaluate
    predict_data: Callable[[Tensor, Tensor, slice], Tensor]


def bind_to_engine(
    make_engine: MakeEngine,
    prepared: dict[ConditionalUnet1D, PreparedNetwork | None],
    *,
    threads: int,
    horizon: int,
) -> BindNetwork:
    """Evaluation of networks through an engine, each of which is prepared when it is first seen.

    Not a method of the runtime: its policy would refer to it, and a runtime that nobody needs any more, with its
    compiled networks, would stay until the garbage collector finds that cycle.

    Args:
        make_engine: engine.
        prepared: networks that are prepared, by which they are kept; None for one that the engine cannot evaluate.
        threads: number of CPU threads.
        horizon: number H of actions in a sequence.
    """

    def prepare(network: ConditionalUnet1D, solver: Solver) -> PreparedNetwork | None:
        if has_lora(network):  # their scale may change, and FiLM with it
            return None
        film = hoist_film(network, solver.timesteps)
        unet = ModulatedUnet(network, horizon, film.widths).eval()
        return PreparedNetwork(film, make_engine(unet, threads), data_prediction(solver))

    def bind(network: ConditionalUnet1D, solver: Solver, condition: Tensor) -> Denoise:
        if network not in prepared:
            prepared[network] = prepare(network, solver)
        ready = prepared[network]
        if ready is None:
            return make_denoise(network, solver, condition)
        film: Tensor | None = None

        def denoise(states: Tensor, steps: slice) -> Tensor:
            nonlocal film
            if film is None:  # first use of this network in the chunk
                film = ready.film(condition)
            epsilon = ready.evaluate(states.flatten(0, 1), film[:, steps].flatten(0, 1)).view_as(states)
            return ready.predict_data(states, epsilon, steps)

        return denoise

    return bind
